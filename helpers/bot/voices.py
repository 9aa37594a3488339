"""Voices: which of her experts answers a turn, where the server has several.

In: the names of the experts by scene, and the exchanges so far. Out: a `Voice`. It keeps nothing: the same exchanges
give the same voice, after a restart too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from helpers.bot.store import Turn
from helpers.data.scenes import Scene
from helpers.safety.guard import PAUSE
from helpers.serve.router import READ, Cause, Route, Router

_SCENES: dict[Scene, str] = {"casual": "ふだんの話", "emotional": "気持ちの話", "romantic": "恋の話"}
_CAUSES: dict[Cause, str] = {
    "danger": "だれかが危ないかもしれないからです",
    "held": "その前からの話が続いていると見ました",
    "word": "あなたの言葉に、はっきりした手がかりがありました",
    "likeness": "あなたの言葉が、そういう話に似ていました",
}


@dataclass(frozen=True)
class Voice:
    """`name` is what the server is asked for, None for her own voice, where the route's scene has no expert."""

    name: str | None
    route: Route

    @property
    def explained(self) -> str:
        """Whose voice it was and why, in Japanese: what `/why` shows."""
        who = "専用の声" if self.name else "専用の声がないので、いつもの声"
        return f"最後の返事は「{_SCENES[self.route.scene]}」として、{who}で答えました。{_CAUSES[self.route.cause]}。"


class Voices:
    """Picks by the router.

    Args:
        experts: the served name of each scene's expert.
        in_danger: see `Router`.
    """

    most = READ  # exchanges, the last ones, decide

    def __init__(self, experts: Mapping[str, str], in_danger: Callable[[str], object]):
        self._experts, self._router = experts, Router(in_danger)

    def of(self, turns: Sequence[Turn]) -> Voice:
        """Who answers the last of `turns`. Exchanges before a long silence are another talk's, and do not count."""
        route = self._router.pick([turn.words for turn in _of_this_talk(turns)], turns[-1].level)
        return Voice(self._experts.get(route.scene), route)


def _of_this_talk(turns: Sequence[Turn]) -> Sequence[Turn]:
    begins = [i for i in range(1, len(turns)) if turns[i].at - turns[i - 1].at >= PAUSE]
    return turns[begins[-1] if begins else 0 :]
