"""What a judge's marks are worth, axis by axis, measured against people's.

In: verdicts on samples that people have rated too, the same asked a second time, and preferences in both orders. Out:
Spearman's ρ and quadratically weighted κ against the people's mean, the flip rate, and κ of the judge with itself. ρ is
taken within arms too: a judge that knows the bare base from a trained arm, and nothing else, agrees with people over
all arms. An axis is trusted only if all of `BOUNDS` hold; they were set before any judge was measured.
Source: Cohen, Psychological Bulletin 70, 1968 (weighted κ). That exact agreement flatters a judge, and that a biased
judge can repeat itself well: arXiv 2606.19544.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import cohen_kappa_score

from helpers.evaluate.bootstrap import Interval, ends, times_together
from helpers.evaluate.judge import Preference, Verdict
from helpers.evaluate.questionnaire import by_sample
from helpers.evaluate.rubrics import MARKS, Axis


@dataclass(frozen=True)
class Bounds:
    """What an axis must reach: `samples` rated by at least `raters` people; ρ over all arms and ρ within them, each by
    the lower end of its 95 % interval; κ; test–retest; and `flips` at most."""

    samples: int = 100
    raters: int = 3
    spearman: float = 0.5
    kappa: float = 0.4
    flips: float = 0.2
    retest: float = 0.7


BOUNDS = Bounds()


@dataclass(frozen=True)
class Calibration:
    """One axis. `samples` were rated by people and marked by the judge, `enough` of them by enough people. Of ρ, and of
    ρ `within` arms, the 95 % interval is over scenarios; κ is over all arms. What cannot be computed is None."""

    axis: str
    samples: int
    enough: int
    spearman: Interval | None
    within: Interval | None
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
        for name, rho in (("ρ", self.spearman), ("ρ within arms", self.within)):
            if rho is None or rho.low < b.spearman:
                reasons.append(f"lower end of {name} below {b.spearman}" if rho else f"no {name}")
        if self.kappa is None or self.kappa < b.kappa:
            reasons.append(f"κ below {b.kappa}" if self.kappa is not None else "no κ")
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
    whose = {r["sample"]: (r["arm"], r["unit"]) for r in ratings}
    arms, units = zip(*(whose[sample] for sample in shared), strict=True) if shared else ((), ())
    twice = [key for key in marks if key[1] == axis and key in again]
    flipped = [p.flipped for p in preferences if p.axis == axis]
    return Calibration(
        axis,
        len(shared),
        sum(len(people[sample]) >= BOUNDS.raters for sample in shared),
        _spearman(judge, means, units, draws, seed),
        _spearman(_within(judge, arms), _within(means, arms), units, draws, seed),
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


def _within(values: np.ndarray, arms: Sequence[str]) -> np.ndarray:
    """How far each value is from the mean of its arm."""
    means = {arm: values[[a == arm for a in arms]].mean() for arm in set(arms)}
    return np.round(values - [means[arm] for arm in arms], 9)


def _spearman(a: np.ndarray, b: np.ndarray, units: Sequence[str], draws: int, seed: int) -> Interval | None:
    """Spearman's ρ and its interval over `units`; None with fewer than three values or where one side is constant."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    (whole,) = _correlation(a, b, np.ones((1, len(a))))
    drawn, n = _correlation(a, b, times_together(units, draws, seed)), len(set(units))
    return Interval(float(whole), *ends(drawn, n), n=n)


def _correlation(a: np.ndarray, b: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Spearman's ρ in each row of `times`, which says how often each value is there; nan where one side is constant."""
    n = times.sum(axis=1, keepdims=True)
    ranks = (_ranks(values, times) for values in (a, b))
    a, b = (r - (times * r).sum(axis=1, keepdims=True) / n for r in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (times * a * b).sum(axis=1) / np.sqrt((times * a**2).sum(axis=1) * (times * b**2).sum(axis=1))


def _ranks(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """In each row the rank of each value, less a half; those that are alike share the mean of theirs."""
    kinds, place = np.unique(values, return_inverse=True)
    counts = times @ np.eye(len(kinds))[place]
    return (counts.cumsum(axis=1) - counts / 2)[:, place]


COLUMNS = ["axis", "samples", "Spearman's ρ", "ρ within arms", "weighted κ", "flip rate", "test–retest κ", "trusted"]


def table(calibrations: Sequence[Calibration]) -> list[list[str]]:
    """One row an axis."""
    rows = []
    for c in calibrations:
        rhos = ("–" if rho is None else str(rho) for rho in (c.spearman, c.within))
        kappa, flips, retest = ("–" if v is None else f"{v:.2f}" for v in (c.kappa, c.flips, c.retest))
        trusted = "yes" if c.trusted else f"no: {'; '.join(c.shortcomings)}"
        rows.append([c.axis, str(c.samples), *rhos, kappa, flips, retest, trusted])
    return rows
