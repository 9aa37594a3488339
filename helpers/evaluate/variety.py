"""Variety: does she feel, and end her sentences, in more than one way?

In: replies by talk. Out: counts with intervals: how many replies show a feeling; the chance that two feelings, or two
sentence endings, out of different talks differ; how many sentences end as the card has it. They are read beside her own
dialogues, and do not count in the total, for random words are varied too. The card's endings are counted here and are
no rule of persona consistency: nearly half of the replies that were written as hers have none of them.
Source: Simpson, Nature 163, 1949 (the chance that two differ), between talks only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helpers.conversations import Conversation
from helpers.evaluate.bootstrap import Interval, ends, interval, times_drawn
from helpers.evaluate.metrics import Row, emotion
from helpers.evaluate.metrics.metric import Tools
from helpers.persona_rules import sentences

ENDING = 2  # letters
COLUMNS = [
    "arm",
    "replies that show a feeling",
    "two feelings differ",
    "two endings differ",
    "sentences that end as the card has it",
]
Replies = Mapping[str, Mapping[int, Sequence[str]]]
"""Unit → sample → what she said."""


@dataclass(frozen=True)
class Variety:
    """Shares, 0 to 1, as in `COLUMNS`; None where there is nothing to count."""

    arm: str
    feeling: Interval
    feelings: Interval | None
    endings: Interval | None
    hers: Interval | None

    def row(self) -> list[str]:
        """As `COLUMNS` names it."""
        found = (self.feeling, self.feelings, self.endings, self.hers)
        return [self.arm, *("–" if one is None else str(one) for one in found)]


def played(rows: Iterable[Row], arm: str) -> Replies:
    """What an arm said in the scenarios."""
    said: dict[str, dict[int, list[str]]] = {}
    for row in rows:
        if row.arm == arm and "persona" in row.values:
            said.setdefault(row.unit, {}).setdefault(row.sample, []).append(row.reply)
    return said


def written(conversations: Iterable[Conversation]) -> Replies:
    """What she says in dialogues."""
    return {c.id: {0: [m.content for m in c.messages if m.role == "assistant"]} for c in conversations}


def count(name: str, said: Replies, tools: Tools, draws: int, seed: int) -> Variety:
    """Count what `said` holds.

    Raises:
        ValueError: nothing was said.
    """
    texts = [text for samples in said.values() for replies in samples.values() for text in replies]
    shown = dict(zip(texts, emotion.shown(texts, tools), strict=True))
    ended = {text: sentences(text) for text in texts}

    def of(each) -> dict[str, dict[int, list]]:
        return {u: {s: [x for text in texts for x in each(text)] for s, texts in of.items()} for u, of in said.items()}

    hers = of(lambda text: [s.endswith(tuple(tools.card.sentence_endings)) for s in ended[text]])
    return Variety(
        name,
        interval(of(lambda text: [bool(shown[text])]), draws, seed),
        _differing(of(lambda text: shown[text]), draws, seed),
        _differing(of(lambda text: [s[-ENDING:] for s in ended[text]]), draws, seed),
        interval(hers, draws, seed) if any(ended.values()) else None,
    )


def _differing(found: Mapping[str, Mapping[int, Sequence[str]]], draws: int, seed: int) -> Interval | None:
    """The chance that two kinds out of different talks differ; None if no two talks have one."""
    talks = [kinds for samples in found.values() for kinds in samples.values()]
    place = {kind: n for n, kind in enumerate(dict.fromkeys(kind for kinds in talks for kind in kinds))}
    counts = np.zeros((len(talks), len(place)))
    for talk, kinds in enumerate(talks):
        for kind in kinds:
            counts[talk, place[kind]] += 1
    (whole,) = _chance(counts, np.ones((1, len(talks))))
    if np.isnan(whole):
        return None
    times = times_drawn(tuple(map(len, found.values())), draws, seed)
    return Interval(round(float(whole), 6), *ends(_chance(counts, times), len(found)), n=len(found))


def _chance(counts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Of each row of `times`, which says how often each talk is there: 1 − pairs that are alike / pairs, without those
    within one talk. nan where there are none."""
    drawn, squares = times @ counts, times**2
    alike = (drawn**2).sum(axis=1) - squares @ (counts**2).sum(axis=1)
    pairs = drawn.sum(axis=1) ** 2 - squares @ counts.sum(axis=1) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, 1 - alike / pairs, np.nan)
