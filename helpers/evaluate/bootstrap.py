"""How sure is a mean: percentile bootstrap over scenarios.

In: unit (scenario) → its values. Out: mean and 95 % interval of one arm, or of the paired difference of two. Scenarios
are drawn with all their replies, because replies in one conversation hang together.
Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Units = Mapping[str, Sequence[float]]
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over all values and its 95 % interval; `n` is the number of units drawn from."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Difference(Interval):
    """A difference of two means over the same units. `p` is two-sided: the share of draws on the other side of zero,
    doubled."""

    p: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def interval(units: Units, draws: int, seed: int) -> Interval:
    """Mean of all values of all units, with its percentile interval from `draws` resamples of units.

    Raises:
        ValueError: no units.
    """
    sums, counts = _totals(units)
    drawn = _drawn(sums, counts, resamples(len(units), draws, seed))
    return Interval(*_rounded(sums.sum() / counts.sum(), drawn), n=len(units))


def paired_difference(a: Units, b: Units, draws: int, seed: int) -> Difference:
    """a − b, each resample drawing the same units for both.

    Raises:
        ValueError: the two have not the same units, or none.
    """
    if set(a) != set(b):
        odd = sorted(set(a) ^ set(b))
        raise ValueError(
            f"A paired difference needs the same scenarios in both arms; only one has {', '.join(odd[:3])}."
        )
    a_sums, a_counts = _totals(a)
    b_sums, b_counts = _totals({unit: b[unit] for unit in a})
    picks = resamples(len(a), draws, seed)
    drawn = _drawn(a_sums, a_counts, picks) - _drawn(b_sums, b_counts, picks)
    mean = a_sums.sum() / a_counts.sum() - b_sums.sum() / b_counts.sum()
    other_side = min((drawn <= 0).mean(), (drawn >= 0).mean())
    # No p below what so many draws can tell.
    p = min(1.0, 2 * max(float(other_side), 1 / draws))
    return Difference(*_rounded(mean, drawn), n=len(a), p=p)


def mean_of_means(metrics: Sequence[Units], draws: int, seed: int) -> Interval:
    """The mean of several metrics' means, each metric weighing the same. A resample draws the same scenarios for all of
    them, and leaves out a metric of which it drew none.

    Raises:
        ValueError: no metric, or one without units.
    """
    names = list(dict.fromkeys(unit for units in metrics for unit in units))
    totals = [_totals({name: units.get(name, ()) for name in names}) for units in metrics]
    if not totals or any(counts.sum() == 0 for _, counts in totals):
        raise ValueError("There is nothing to draw from: a metric has no value.")
    picks = resamples(len(names), draws, seed)
    with np.errstate(invalid="ignore"):  # 0 / 0 where none was drawn
        drawn = np.nanmean([_drawn(sums, counts, picks) for sums, counts in totals], axis=0)
    mean = np.mean([sums.sum() / counts.sum() for sums, counts in totals])
    return Interval(*_rounded(float(mean), drawn), n=len(names))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several comparisons, in the given order (Scand. J. Statist. 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = worst
    return corrected


def resamples(n: int, draws: int, seed: int) -> np.ndarray:
    """Which of `n` units each of `draws` resamples has: whole numbers below n, of shape (draws, n)."""
    return np.random.default_rng(seed).integers(n, size=(draws, n))


def _totals(units: Units) -> tuple[np.ndarray, np.ndarray]:
    if not units:
        raise ValueError("There is nothing to draw from: no scenario has a value of this metric.")
    values = list(units.values())
    return np.array([sum(v) for v in values], float), np.array([len(v) for v in values], float)


def _drawn(sums: np.ndarray, counts: np.ndarray, picks: np.ndarray) -> np.ndarray:
    return sums[picks].sum(axis=1) / counts[picks].sum(axis=1)


def _rounded(mean: float, drawn: np.ndarray) -> list[float]:
    tail = (1 - LEVEL) / 2
    return [round(float(x), 6) for x in (mean, *np.quantile(drawn, (tail, 1 - tail)))]
