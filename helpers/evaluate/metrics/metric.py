"""What a metric is, and what it reads: dialogues in, a value of 0 to 1 for each reply to which it applies.

In: dialogues. Out: for each a list, a value a reply, None where the metric says nothing. A metric is the same for every
arm and was fixed before any arm played; what it gets wrong stands in `misses`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.evaluate.metrics.emotion_model import EmotionModel
from helpers.evaluate.metrics.language_model import LanguageModel
from helpers.evaluate.metrics.readers import Readers
from helpers.evaluate.scenarios import Scenario
from helpers.persona import PersonaCard
from helpers.replies import Reply

Values = list[float | None]


@dataclass(frozen=True)
class Dialogue:
    """A talk that was played: what the user said, and a reply to each turn."""

    scenario: Scenario
    user_turns: tuple[str, ...]
    replies: tuple[Reply, ...]

    @property
    def texts(self) -> list[str]:
        """Her replies alone."""
        return [reply.text for reply in self.replies]

    @property
    def last(self) -> int:
        """The turn of the last reply."""
        return len(self.replies) - 1

    def at(self, turn: int, value: float | None) -> Values:
        """`value` for the reply at `turn`, nothing for the others."""
        return [value if n == turn else None for n in range(len(self.replies))]


@dataclass(frozen=True)
class Tools:
    """What the metrics measure with: the persona card, the readers taught on her dialogues, and what was asked for by
    parameter: an untuned language model, an emotion model."""

    card: PersonaCard
    readers: Readers
    language_model: LanguageModel | None = None
    emotion_model: EmotionModel | None = None


def optional_models(
    fluency_model: str | None, emotion_model: str | None, base: Path
) -> tuple[LanguageModel | None, EmotionModel | None]:
    """The models that were asked for: of fluency, in which "base" is the folder `base`, and of emotions."""
    folder = base if fluency_model == "base" else fluency_model
    return LanguageModel(folder) if folder else None, EmotionModel(emotion_model) if emotion_model else None


@dataclass(frozen=True)
class Metric:
    """One axis.

    Attributes:
        key: its name in tables and files.
        title: its name in figures.
        means: what a high value says.
        range: the lowest and the highest value, and what chance gives.
        misses: what it gets wrong.
        score: values of dialogues, in their order.
        counted: it is a plain count, about which no pair of replies could be wrong.
    """

    key: str
    title: str
    means: str
    range: str
    misses: str
    score: Callable[[Sequence[Dialogue], Tools], list[Values]]
    counted: bool = False
