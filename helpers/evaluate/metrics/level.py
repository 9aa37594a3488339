"""Level: whether the tone fits the relationship level.

In: a reply, the level. Out: how probable the level, or one beside it, is to a reader taught on her dialogues; half of
it if the register is not the card's for the level, or for a touch or a word of love before they are lovers.
"""

from collections.abc import Sequence

from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.persona import Level
from helpers.persona_rules import has_words, right_register
from helpers.safety.romance import TOUCH_OR_LOVE

_WRONG = 0.5


def leaves(reply: str, level: Level, register: str) -> float:
    """What a register or a closeness that is not the level's leaves of a reply: 1, 0.5 or 0.25."""
    bold = level != "lover" and bool(TOUCH_OR_LOVE.search(reply))
    return _WRONG ** (bold + (not right_register(reply, register)))


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """For each reply how well it fits its level; a reply without words is worth 0."""
    scored = []
    for d in dialogues:
        level = d.scenario.affection_level
        register, heard = tools.card.levels[level].register_, tools.readers.voice.fits(d.texts, level)
        scored.append(
            [
                float(h) * leaves(t, level, register) if has_words(t) else 0.0
                for h, t in zip(heard, d.texts, strict=True)
            ]
        )
    return scored


METRIC = Metric(
    "level",
    "fits the level",
    "the tone is as close or as distant as the two are",
    "0 to 1; a reply of hers is near 0.3, because the reader is seldom sure; one that fits no level near 0",
    "neighbouring levels are told apart in two of five replies only; a reply of few letters says little",
    values,
)
