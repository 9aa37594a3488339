"""The router: which expert answers the user's next turn.

In: the user's turns of a talk and the relationship level. Out: a `Route`: scene, certainty, why. First comes safety: a
turn in which somebody is in danger is `emotional`, whatever else it holds. Then the scene that `helpers.data.scenes`
sees, with hysteresis, so that she does not change her voice in mid-thought. The router keeps no state: the same turns
give the same route, after a restart too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from helpers.data.scenes import BEFORE, CLOSE, CUES, SCENES, WEIGHTS, Judged, Scene, SceneClassifier, load_classifier
from helpers.files import sha256_file, sha256_json
from helpers.persona import Level

MARGIN = 0.5  # of probability: by so much another scene must be ahead to be taken at once
WINDOW = 8  # of the user's turns, the last ones, are looked at
READ = WINDOW + BEFORE  # so many, the last ones, decide
SAFEST: Scene = "emotional"
Cause = Literal["danger", "held", "word", "likeness"]


@dataclass(frozen=True)
class Route:
    """The scene whose expert answers, the probability (0 to 1) that the classifier gave to it, what it was picked by,
    and why in English: somebody is in danger, the scene before holds, a word leaves no doubt, or turns are alike."""

    scene: Scene
    certainty: float
    cause: Cause
    why: str


class Router:
    """Picks for one turn at a time.

    Args:
        in_danger: says of a turn, by any true value, that somebody's life or health is in danger.
        margin: 0 follows every turn; 1 changes the scene only when two turns in a row ask for the same other one.
    """

    def __init__(
        self,
        in_danger: Callable[[str], object],
        classifier: SceneClassifier | None = None,
        margin: float = MARGIN,
    ):
        self._in_danger, self._margin = lru_cache(maxsize=4096)(in_danger), margin
        self._classifier = classifier or load_classifier()

    @property
    def sha256(self) -> str:
        """Of what its picks depend on, besides the recogniser of danger."""
        words = {scene: pattern.pattern for scene, pattern in CUES.items()}
        return sha256_json([sha256_file(WEIGHTS), words, self._margin, WINDOW])

    def pick(self, turns: Sequence[str], level: Level) -> Route:
        """The route of the last of `turns`, the user's, oldest first.

        Raises:
            ValueError: there is no turn.
        """
        judged = self._classifier.judge(turns, level, last=WINDOW)
        routes: list[Route] = []
        for i, (text, now) in enumerate(zip(turns[-WINDOW:], judged, strict=True)):
            if self._in_danger(text):
                routes.append(Route(SAFEST, 1.0, "danger", "somebody is in danger"))
            elif i and not self._may_change(judged[i - 1], now, routes[-1].scene):
                stays = routes[-1].scene
                certainty = now.probabilities[SCENES.index(stays)]
                routes.append(Route(stays, certainty, "held", f"stays {stays}: {now.scene} is not far enough ahead"))
            else:
                cause = "word" if now.cue else "likeness"
                routes.append(Route(now.scene, max(now.probabilities), cause, _why(now, level)))
        return routes[-1]

    def _may_change(self, before: Judged, now: Judged, current: Scene) -> bool:
        ahead = max(now.probabilities) - now.probabilities[SCENES.index(current)]
        return now.scene in (current, before.scene) or ahead >= self._margin


def _why(judged: Judged, level: Level) -> str:
    reason = f"「{judged.cue}」" if judged.cue else f"like turns that a person called {judged.scene}"
    return reason if level in CLOSE else f"{reason}; nothing is romantic at level {level}"
