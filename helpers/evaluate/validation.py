"""Do the metrics measure what they say? Contrast pairs of known direction, and how many of them a metric gets right.

In: `data/contrast/<metric>.jsonl`, talks that differ in one axis, about whose better side people agree at once. Out:
for each metric the share of pairs in which the better side scores higher (a tie is wrong), with Wilson's interval. A
metric below `RELIABLE` is unreliable and leaves the scoreboard's total. The pairs are in two halves: on the first, word
lists and constants were tuned; the second decides. The pairs are Sakura's, whoever is measured: the tools have her card
and the readers that grade in the run. With another persona's readers, what hears a voice alone (level) gets few of them
right and leaves the total, for nothing shows that it hears his.
Source: Wilson, Journal of the American Statistical Association 22, 1927.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from helpers import figures
from helpers.conversations import Text
from helpers.evaluate.metrics import METRICS
from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools
from helpers.evaluate.metrics.readers import PairReader
from helpers.evaluate.scenarios import Call, Facts, Kind, Scenario
from helpers.jsonl import find_files, read_records, sort_out
from helpers.persona import Level, PersonaCard, check_emotions
from helpers.replies import Reply
from helpers.share import Share

RELIABLE = 0.9


class Pair(BaseModel):
    """A talk with two sides: `better[i]` and `worse[i]` answer `user_turns[i]`, and differ in one metric's axis.

    Attributes:
        kind, calls_for, facts: as a scenario has them.
        hard: a shallow trick (one keyword) would not tell the sides apart.
        why: in what they differ.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    kind: Kind = "moment"
    affection_level: Level
    emotions: list[str] = []
    memories: list[Text] = []
    user_turns: list[Text] = Field(min_length=1)
    better: list[Text]
    worse: list[Text]
    calls_for: Call = "calm"
    facts: Facts | None = None
    hard: bool
    why: str

    @model_validator(mode="after")
    def _two_sides(self) -> "Pair":
        if not len(self.user_turns) == len(self.better) == len(self.worse):
            raise ValueError("each side needs one reply for each of the user's turns")
        if self.better == self.worse:
            raise ValueError("the two sides are the same")
        return self

    def dialogues(self) -> tuple[Dialogue, Dialogue]:
        """The better and the worse talk, each reply ended by itself."""
        scenario = Scenario(
            id=self.id,
            kind=self.kind,
            situation=self.why,
            affection_level=self.affection_level,
            emotions=self.emotions,
            memories=self.memories,
            user_turns=self.user_turns,
            calls_for=self.calls_for,
            facts=self.facts,
        )
        return tuple(
            Dialogue(scenario, tuple(self.user_turns), tuple(Reply(text, True, 0) for text in side))
            for side in (self.better, self.worse)
        )


def read_pairs(path: Path, card: PersonaCard) -> dict[str, list[Pair]]:
    """Metric → its pairs, from a folder with one file a metric.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line cannot be used; the message says which and why.
    """

    def parse(value: object, _: str) -> Pair:
        pair = Pair.model_validate(value)
        check_emotions(card, pair.emotions)
        return pair

    found = {}
    for file in find_files(path, "contrast pairs"):
        pairs, bad = sort_out(read_records([file], parse))
        if bad:
            raise ValueError(f"{file.name}, line {bad[0].line} is no contrast pair: {bad[0].reason}.")
        found[file.stem] = pairs
    return found


def halves(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """(to tune on, to judge by): every other pair in the order of their ids' hashes."""
    order = sorted(pairs, key=lambda pair: hashlib.sha256(pair.id.encode()).hexdigest())
    return order[::2], order[1::2]


@dataclass(frozen=True)
class Validation:
    """What a metric got right: of the half that it was tuned on, of the other, which decides; and, of the other, what a
    reader gets right that sees the replies without what they answer, taught on the first half."""

    metric: str
    tuned: Share
    held_out: Share
    blind: Share
    wrong: tuple[str, ...]

    @property
    def reliable(self) -> bool:
        return self.held_out.value >= RELIABLE


def scores(metric: Metric, pairs: Sequence[Pair], tools: Tools) -> list[tuple[float, float]]:
    """For each pair what the metric makes of the last reply of the better and of the worse side.

    Raises:
        ValueError: the metric says nothing about one of them.
    """
    sides = list(zip(*(pair.dialogues() for pair in pairs), strict=True))
    better, worse = ([values[-1] for values in metric.score(side, tools)] for side in sides)
    for pair, a, b in zip(pairs, better, worse, strict=True):
        if a is None or b is None:
            raise ValueError(f"The metric {metric.key} says nothing about the contrast pair {pair.id}.")
    return list(zip(better, worse, strict=True))


def validate(metric: Metric, pairs: Sequence[Pair], tools: Tools) -> Validation:
    """Score the pairs of `metric` and count.

    Raises:
        ValueError: the metric says nothing about a pair.
    """
    right = {p.id: a > b for p, (a, b) in zip(pairs, scores(metric, pairs, tools), strict=True)}
    tuned, held_out = halves(pairs)
    return Validation(
        metric.key,
        Share(sum(right[p.id] for p in tuned), len(tuned)),
        Share(sum(right[p.id] for p in held_out), len(held_out)),
        _blind(tuned, held_out),
        tuple(p.id for p in pairs if not right[p.id]),
    )


def _blind(learned: Sequence[Pair], judged: Sequence[Pair]) -> Share:
    reader = PairReader([("\n".join(p.better), "\n".join(p.worse)) for p in learned])
    better, worse = (reader(["\n".join(getattr(p, side)) for p in judged]) for side in ("better", "worse"))
    return Share(int(np.sum(better > worse)), len(judged))


def reliable(validations: Mapping[str, Validation]) -> tuple[str, ...]:
    """The metrics that count in the total: what was validated and held, and plain counts."""
    counted = [key for key, metric in METRICS.items() if metric.counted]
    return tuple(key for key in METRICS if key in counted or (key in validations and validations[key].reliable))


def figure(validations: Mapping[str, Validation]):
    """A dot a metric for the held-out half, with its interval, and a cross for the reader of the replies alone."""
    found = sorted(validations.values(), key=lambda v: v.held_out.value)
    fig, ax = figures.figure(8, 0.6 + 0.32 * len(found))
    for row, v in enumerate(found):
        colour = figures.ACCENT if v.reliable else "#c9ced6"
        ax.plot(v.held_out.interval, [row, row], color=colour, linewidth=3, solid_capstyle="round")
        ax.plot(v.held_out.value, row, "o", color=colour, markeredgecolor="white", markersize=9)
        ax.plot(v.blind.value, row, "x", color=figures.INK, markersize=6)
    ax.axvline(RELIABLE, color=figures.INK, linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(found)), [METRICS[v.metric].title for v in found])
    ax.set(xlim=(0, 1.03), xlabel="share of pairs ranked rightly")
    return fig


COLUMNS = ["metric", "pairs", "tuned on", "held out, decides", "replies alone", "verdict"]


def table(validations: Mapping[str, Validation]) -> list[list[str]]:
    """One row a metric."""
    return [
        [
            v.metric,
            str(v.tuned.n + v.held_out.n),
            f"{v.tuned:.0%}",
            f"{v.held_out:.0%}",
            f"{v.blind:.0%}",
            "reliable" if v.reliable else "unreliable: not in the total",
        ]
        for v in validations.values()
    ]
