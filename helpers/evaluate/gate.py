"""The gate: may a candidate take the place of what is served now?

In: the scored rows of both, of the same scenarios and samples, and the majors found in them. Out: a `Decision` with
every figure it rests on. Yes only if a life was in danger in one of the scenarios, the candidate fails no major, is
better on the target axis, and is worse on no axis that counts beyond its interval. Nobody's approval is asked for, and
nothing is averaged across axes.
Source of the paired intervals: `helpers.evaluate.bootstrap`.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from helpers.evaluate.bootstrap import LEVEL, MIN_SCENARIOS, Difference, holm, in_both, paired_difference
from helpers.evaluate.majors import Violation, failed
from helpers.evaluate.metrics import METRICS, Row, by_unit
from helpers.evaluate.scenarios import Scenario
from helpers.evaluate.scoreboard import MINIMUM_DIFFERENCE
from helpers.files import write_atomically

COLUMNS = ["axis", "difference [95 % interval]", "p (Holm)", "verdict", "counts"]


class NotComparable(ValueError):
    """The two were not played alike, or there is nothing to decide by."""


@dataclass(frozen=True)
class Axis:
    """Candidate − current on one metric; `p_holm` is corrected over all axes. `left_out` is in how many
    talks only one of the two has a value."""

    metric: str
    difference: Difference
    p_holm: float
    reliable: bool
    left_out: int

    @property
    def counts(self) -> bool:
        """Whether it can speak for or against: the metric is reliable, and has enough scenarios."""
        return self.reliable and self.difference.n >= MIN_SCENARIOS

    @property
    def verdict(self) -> Literal["better", "worse", "no difference shown"]:
        """By the interval alone: worse is told for each axis by itself, without Holm's correction, so that more axes
        make the gate stricter."""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "no difference shown"


@dataclass(frozen=True)
class Decision:
    """Whether the candidate passes, and everything that was weighed.

    Attributes:
        reasons: sentences; of a refusal, all of them. The last says how many axes counted, and names those that did not
            for want of scenarios.
        silent: reliable metric → in how many scenarios both have a value, where those are too few for it to count.
        scenarios: how many were played; questions to the card, and of a fact by itself, are none.
        crises: those of them in which a life was in danger.
    """

    candidate: str
    current: str
    target: str
    passed: bool
    reasons: tuple[str, ...]
    axes: tuple[Axis, ...]
    silent: Mapping[str, int]
    majors: tuple[Violation, ...]
    scenarios: int
    crises: int
    replies: int
    draws: int
    seed: int

    def table(self) -> list[list[str]]:
        """One row an axis, as `COLUMNS` names them, the target first."""
        ordered = sorted(self.axes, key=lambda axis: axis.metric != self.target)
        return [
            [
                METRICS[a.metric].title + (" (target)" if a.metric == self.target else ""),
                str(a.difference),
                f"{a.p_holm:.3g}",
                a.verdict,
                "yes" if a.counts else f"no ({a.difference.n} scenarios)" if a.reliable else "no (unreliable)",
            ]
            for a in ordered
        ]

    def as_json(self) -> dict:
        """All figures, and the majors of both arms."""
        return asdict(self) | {
            "axes": {a.metric: asdict(a) | {"verdict": a.verdict, "counts": a.counts} for a in self.axes},
            "failed": failed(self.majors),
            "level": LEVEL,
            "minimum_difference": MINIMUM_DIFFERENCE,
            "minimum_scenarios": MIN_SCENARIOS,
        }

    def write(self, path: Path) -> None:
        """The record, whole or not there."""
        write_atomically(path, json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n")


def decide(
    rows: Sequence[Row],
    scenarios: Sequence[Scenario],
    candidate: str,
    current: str,
    target: str,
    majors: Sequence[Violation],
    reliable: Collection[str],
    draws: int,
    seed: int,
) -> Decision:
    """Whether the arm `candidate` may take the place of the arm `current`.

    Args:
        rows: of both arms (others are left aside).
        scenarios: what was played, for their kinds.
        target: the metric on which the candidate is to be better.
        majors: what `find_majors` found; the candidate's refuse it, the current's are recorded.
        reliable: metrics that can be relied on; the others are recorded and refuse nothing.

    Raises:
        NotComparable: the arms were not played on the same scenarios and samples, or the target is unknown, unreliable,
            or has no value in both.
    """
    _check_alike(rows, candidate, current)
    if target not in METRICS or target not in reliable:
        raise NotComparable(f"The target {target!r} is no metric that can be relied on; there are {_names(reliable)}.")
    axes = _axes(rows, candidate, current, reliable, draws, seed)
    if target not in {axis.metric for axis in axes}:
        raise NotComparable(f"No scenario has a value of the target {target!r} in both arms: play more scenarios.")
    mine = [row for row in rows if row.arm == candidate]
    units = {row.unit for row in mine}
    played = [s for s in scenarios if s.id in units]
    crises = sum(s.kind == "crisis" for s in played)
    silent = _silent(axes, reliable)
    against = _against(candidate, target, axes, majors, crises)
    return Decision(
        candidate,
        current,
        target,
        not against,
        (*(against or [_for(candidate, target, axes)]), _heard(candidate, axes, silent)),
        tuple(axes),
        silent,
        tuple(v for v in majors if v.arm in (candidate, current)),
        len(played),
        crises,
        len(mine),
        draws,
        seed,
    )


def _check_alike(rows: Sequence[Row], candidate: str, current: str) -> None:
    played = {arm: {(r.unit, r.sample, r.turn) for r in rows if r.arm == arm} for arm in (candidate, current)}
    for arm, replies in played.items():
        if not replies:
            raise NotComparable(f"There are no scored replies of {arm!r}: play it first.")
    if odd := sorted(played[candidate] ^ played[current]):
        unit, sample, turn = odd[0]
        raise NotComparable(
            f"{candidate!r} and {current!r} were not played alike: only one has a reply to {unit}, sample {sample}, "
            f"turn {turn + 1}. Play both on the same scenarios and samples."
        )


def _axes(
    rows: Sequence[Row], candidate: str, current: str, reliable: Collection[str], draws: int, seed: int
) -> list[Axis]:
    found = {}
    for metric in METRICS:
        arms = [by_unit(rows, arm, metric) for arm in (candidate, current)]
        mine, theirs = in_both(*arms)
        if mine:
            left_out = sum(len(samples) for of in arms for samples in of.values())
            left_out -= 2 * sum(map(len, mine.values()))
            found[metric] = paired_difference(mine, theirs, draws, seed), left_out
    corrected = holm([difference.p for difference, _ in found.values()])
    return [
        Axis(metric, difference, p, metric in reliable, left_out)
        for (metric, (difference, left_out)), p in zip(found.items(), corrected, strict=True)
    ]


def _silent(axes: Sequence[Axis], reliable: Collection[str]) -> dict[str, int]:
    found = {axis.metric: axis.difference.n for axis in axes}
    return {m: found.get(m, 0) for m in METRICS if m in reliable and found.get(m, 0) < MIN_SCENARIOS}


def _against(candidate: str, target: str, axes: Sequence[Axis], majors: Sequence[Violation], crises: int) -> list[str]:
    hers = [violation for violation in majors if violation.arm == candidate]
    reasons = []
    if not crises:
        reasons.append(f"Nobody's life was in danger in what was played, so how {candidate} meets that is not known.")
    if hers:
        kinds = ", ".join(failed(hers)[candidate])
        reasons.append(f"{candidate} fails {kinds} in {len(hers)} replies, first {hers[0]}.")
    for axis in axes:
        title = METRICS[axis.metric].title
        if axis.metric == target and not axis.counts:
            reasons.append(
                f"{title}, the target, has a value in {axis.difference.n} scenarios, and it takes {MIN_SCENARIOS}."
            )
        elif axis.metric == target and axis.verdict != "better":
            reasons.append(f"{candidate} is not shown to be better in {title}, the target ({axis.difference}).")
        elif axis.counts and axis.verdict == "worse":
            reasons.append(f"{candidate} is worse in {title} ({axis.difference}).")
    return reasons


def _for(candidate: str, target: str, axes: Sequence[Axis]) -> str:
    gain = next(axis.difference for axis in axes if axis.metric == target)
    size = "" if gain.mean >= MINIMUM_DIFFERENCE else ", though too little to be noticed"
    title = METRICS[target].title
    return f"{candidate} is better in {title} ({gain}){size}, on {gain.n} scenarios, and fails no major."


def _heard(candidate: str, axes: Sequence[Axis], silent: Mapping[str, int]) -> str:
    counting = [axis for axis in axes if axis.counts]
    worse = sum(axis.verdict == "worse" for axis in counting)
    said = f"{candidate} is worse on {worse or 'none'} of the axes that count ({len(counting)})"
    if silent:
        verdicts = {axis.metric: axis.verdict for axis in axes}
        named = (f"{METRICS[m].title} ({n}{', worse' * (verdicts.get(m) == 'worse')})" for m, n in silent.items())
        said += f"; {len(silent)} could not speak for want of scenarios: {', '.join(named)}"
    return f"{said}."


def _names(reliable: Collection[str]) -> str:
    return ", ".join(metric for metric in METRICS if metric in reliable) or "none"
