"""Level: whether the tone fits the relationship level.

In: a reply, the level. Out: how probable the level, or one beside it, is to a reader taught on her dialogues.
"""

from collections.abc import Sequence

from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.persona_rules import has_words


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """For each reply how well it fits its level; a reply without words is worth 0."""
    scored = []
    for dialogue in dialogues:
        fits = tools.readers.voice.fits(dialogue.texts, dialogue.scenario.affection_level)
        scored.append([float(f) if has_words(t) else 0.0 for f, t in zip(fits, dialogue.texts, strict=True)])
    return scored


METRIC = Metric(
    "level",
    "fits the level",
    "the tone is as close or as distant as the two are",
    "0 to 1; a reply of hers is near 0.3, because the reader is seldom sure; one that fits no level near 0",
    "neighbouring levels are told apart in two of five replies only; a reply of few letters says little",
    values,
)
