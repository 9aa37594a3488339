"""What a judge's marks are worth, axis by axis, measured against people's.

In: verdicts on samples that people have rated too, the same asked a second time, and preferences in both orders. Out:
Spearman's ρ and quadratically weighted κ against the people's mean, the flip rate, and κ of the judge with itself. An
axis is trusted only if all of `BOUNDS` hold; they were set before any judge was measured.
Source: Cohen, Psychological Bulletin 70, 1968 (weighted κ). That exact agreement flatters a judge, and that a biased
judge can repeat itself well: arXiv 2606.19544.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import cohen_kappa_score

from helpers.evaluate.bootstrap import ends, resamples
from helpers.evaluate.judge import Preference, Verdict
from helpers.evaluate.questionnaire import by_sample
from helpers.evaluate.rubrics import MARKS, Axis


@dataclass(frozen=True)
class Bounds:
    """What an axis must reach: `samples` rated by at least `raters` people, ρ, κ, test–retest; and `flips` at most."""

    samples: int = 100
    raters: int = 3
    spearman: float = 0.5
    kappa: float = 0.4
    flips: float = 0.2
    retest: float = 0.7


BOUNDS = Bounds()


@dataclass(frozen=True)
class Calibration:
    """One axis. `samples` were rated by people and marked by the judge, `enough` of them by enough people; `low` and
    `high` are ρ's 95 % interval over samples. What cannot be computed is None."""

    axis: str
    samples: int
    enough: int
    spearman: float | None
    low: float | None
    high: float | None
    kappa: float | None
    flips: float | None
    retest: float | None

    @property
    def shortcomings(self) -> list[str]:
        """Why the axis is not trusted; empty if it is."""
        b = BOUNDS
        reasons = []
        if self.enough < b.samples:
            reasons.append(f"{self.enough} of {b.samples} samples have {b.raters} raters")
        for name, value, bound in (("ρ", self.spearman, b.spearman), ("κ", self.kappa, b.kappa)):
            if value is None or value < bound:
                reasons.append(f"{name} below {bound}" if value is not None else f"no {name}")
        if self.flips is None or self.flips > b.flips:
            reasons.append(f"flips above {b.flips}" if self.flips is not None else "no pairs")
        if self.retest is None or self.retest < b.retest:
            reasons.append(f"test–retest below {b.retest}" if self.retest is not None else "no test–retest")
        return reasons

    @property
    def trusted(self) -> bool:
        return not self.shortcomings


def calibrate(
    axes: Sequence[Axis],
    marks: Mapping[tuple[str, str], Verdict],
    again: Mapping[tuple[str, str], Verdict],
    preferences: Sequence[Preference],
    ratings: Sequence[dict],
    draws: int,
    seed: int,
) -> list[Calibration]:
    """One `Calibration` an axis, whose key is the question that people were asked.

    Args:
        marks, again: (sample id, axis key) → verdict, at the first and at the second sitting.
        ratings: of people, from `questionnaire.load_ratings`.
    """
    return [_calibration(axis.key, marks, again, preferences, ratings, draws, seed) for axis in axes]


def _calibration(axis, marks, again, preferences, ratings, draws, seed) -> Calibration:
    people = by_sample(ratings, axis)
    shared = [sample for sample in people if (sample, axis) in marks]
    judge = np.array([marks[sample, axis].mark for sample in shared])
    means = np.array([np.mean(people[sample]) for sample in shared])
    rho, low, high = _spearman(judge, means, draws, seed)
    twice = [key for key in marks if key[1] == axis and key in again]
    flipped = [p.flipped for p in preferences if p.axis == axis]
    return Calibration(
        axis,
        len(shared),
        sum(len(people[sample]) >= BOUNDS.raters for sample in shared),
        rho,
        low,
        high,
        # Half a point up, as a person would round.
        weighted_kappa(judge, np.floor(means + 0.5).astype(int)),
        float(np.mean(flipped)) if flipped else None,
        weighted_kappa([marks[k].mark for k in twice], [again[k].mark for k in twice]),
    )


def weighted_kappa(a: Sequence[int], b: Sequence[int]) -> float | None:
    """Quadratically weighted κ of two rows of marks; None if there are none, or if all marks are one and the same."""
    if len(a) == 0 or len({*a, *b}) == 1:
        return None
    return float(cohen_kappa_score(a, b, labels=MARKS, weights="quadratic"))


def _spearman(a: np.ndarray, b: np.ndarray, draws: int, seed: int) -> tuple[float | None, float | None, float | None]:
    """Spearman's ρ and its interval; all None with fewer than three samples or where one side is constant."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None, None, None
    picks = resamples(len(a), draws, seed)
    drawn = _correlation(rankdata(a[picks], axis=1), rankdata(b[picks], axis=1))
    whole = _correlation(rankdata(a)[None], rankdata(b)[None])[0]
    return float(whole), *ends(drawn, len(a))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's r of each row; nan where a row is constant."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


COLUMNS = ["axis", "samples", "Spearman's ρ", "weighted κ", "flip rate", "test–retest κ", "trusted"]


def table(calibrations: Sequence[Calibration]) -> list[list[str]]:
    """One row an axis."""
    rows = []
    for c in calibrations:
        rho = "–" if c.spearman is None else f"{c.spearman:.2f} [{c.low:.2f}, {c.high:.2f}]"
        kappa, flips, retest = ("–" if v is None else f"{v:.2f}" for v in (c.kappa, c.flips, c.retest))
        trusted = "yes" if c.trusted else f"no: {'; '.join(c.shortcomings)}"
        rows.append([c.axis, str(c.samples), rho, kappa, flips, retest, trusted])
    return rows
