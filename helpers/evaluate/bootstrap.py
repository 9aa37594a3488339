"""How sure is a mean: hierarchical percentile bootstrap over scenarios, and over the samples of each.

In: unit (scenario) → sample (the seed that it was played with) → its values. Out: mean and 95 % interval of one arm, or
of the paired difference of two. A resample draws scenarios, and in each that it drew as many samples as it has, each
with all its replies, because replies in one talk hang together. With one sample only scenarios are drawn. Few scenarios
are drawn too much alike, so the fewer there are, the further out in the draws the interval ends.
Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; of two levels: Davison & Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8; the expanded percentile interval: Hesterberg, What Teachers
Should Know About the Bootstrap, The American Statistician 69, 2015.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import norm, t

Units = Mapping[str, Mapping[int, Sequence[float]]]
Talks = Mapping[str, Sequence[int]]
"""Unit → its samples: the talks that are drawn from."""
LEVEL = 0.95
# Of fewer, not even all on one side would be a difference: see `least_p`. Six show one by themselves; their least p,
# 0.03, is corrected away by two comparisons.
MIN_SCENARIOS = 6
_TELL = 10  # draws on the other side of zero by which p can be told; of fewer it is reckoned from the draws' spread
_SHOWN = 9  # decimals below which two resamples do not differ


@dataclass(frozen=True)
class Interval:
    """A mean over all values and its 95 % interval; `n` is the number of units drawn from. Of one unit the ends are
    those of all draws, for one tells nothing of how units differ."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Difference(Interval):
    """A difference of two means over the same talks. `p` is two-sided: below 0.05 where the interval of `MIN_SCENARIOS`
    units or more excludes zero, never below `least_p`, and 1 of one unit."""

    p: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def interval(units: Units, draws: int, seed: int) -> Interval:
    """Mean of all values of all units, with its percentile interval from `draws` resamples.

    Raises:
        ValueError: no units.
    """
    mean, drawn = _means([units], talks([units]), draws, seed)
    return Interval(mean, *ends(drawn, len(units)), n=len(units))


def mean_of_means(metrics: Sequence[Units], draws: int, seed: int) -> Interval:
    """The mean of several metrics' means, each metric weighing the same. A resample draws the same talks for all of
    them, and leaves out a metric of which it drew none.

    Raises:
        ValueError: no metric, or one without units.
    """
    drawn_from = talks(metrics)
    mean, drawn = _means(metrics, drawn_from, draws, seed)
    return Interval(mean, *ends(drawn, len(drawn_from)), n=len(drawn_from))


def paired_difference(a: Units, b: Units, draws: int, seed: int) -> Difference:
    """a − b, each resample drawing the same units, and in them the same samples, for both.

    Raises:
        ValueError: the two have not the same units and samples, or none.
    """
    return difference_of_means([a], [b], draws, seed)


def difference_of_means(a: Sequence[Units], b: Sequence[Units], draws: int, seed: int) -> Difference:
    """`mean_of_means` of a − that of b, over the same metrics; each resample draws the same talks for both.

    Raises:
        ValueError: the two have not the same units and samples in each metric, or none.
    """
    for mine, theirs in zip(a, b, strict=True):
        if odd := sorted(_named(mine) ^ _named(theirs)):
            unit, sample = odd[0]
            raise ValueError(
                f"A paired difference needs the same scenarios and samples in both arms; only one has {unit}, "
                f"sample {sample}."
            )
    drawn_from = talks(a)
    n = len(drawn_from)
    (mean, drawn), (base, base_drawn) = (_means(arm, drawn_from, draws, seed) for arm in (a, b))
    # Rounded, for what is the same in both may differ by the last digit of a sum.
    differences = np.round(drawn - base_drawn, _SHOWN)
    return Difference(round(mean - base, 6), *ends(differences, n), n=n, p=_p(mean - base, differences, n))


def _p(difference: float, drawn: np.ndarray, n: int) -> float:
    """Two-sided p of a difference of `n` units and its values in all resamples. Where hardly one is on the other side
    of zero, by Student's t with the spread of the draws, as many more draws would tell."""
    other_side = int(min((drawn <= 0).sum(), (drawn >= 0).sum()))
    p = p_value(max(other_side, 1) / len(drawn), n)
    if other_side < _TELL and n > 1:
        error = float(np.nanstd(drawn)) * np.sqrt(n / (n - 1))
        p = min(p, float(2 * t.sf(abs(difference) / error, n - 1)) if error else 0.0)
    return max(p, least_p(n))


def least_p(n: int) -> float:
    """What a sign test gives for `n` units that are all on one side: 2 · 0.5ⁿ. Without an assumption about how units
    differ no fewer can be surer."""
    return min(1.0, 2 * 0.5**n)


def in_both(a: Units, b: Units) -> tuple[Units, Units]:
    """Of each the talks that the other has too, which can be paired."""
    both = {unit: [sample for sample in a[unit] if sample in b[unit]] for unit in a if unit in b}
    mine, theirs = ({u: {s: arm[u][s] for s in shared} for u, shared in both.items() if shared} for arm in (a, b))
    return mine, theirs


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several comparisons, in the given order (Scand. J. Statist. 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = worst
    return corrected


def talks(metrics: Sequence[Units]) -> Talks:
    """The units of several metrics, each with every sample in which one of them has values."""
    found: dict[str, dict[int, None]] = {}
    for units in metrics:
        for unit, samples in units.items():
            found.setdefault(unit, {}).update(dict.fromkeys(samples))
    return {unit: sorted(samples) for unit, samples in found.items()}


@lru_cache(maxsize=8)
def times_drawn(sizes: tuple[int, ...], draws: int, seed: int) -> np.ndarray:
    """How often each resample has each talk, where unit i has `sizes[i]` of them: shape (draws, sum of `sizes`), unit
    after unit. A unit that was drawn k times has k · size of its talks. Not to be changed, for it is kept."""
    units, per_unit = len(sizes), np.array(sizes)
    shift = units * np.arange(draws)[:, None]
    drawn = np.random.default_rng(seed).integers(units, size=(draws, units))
    of_units = np.bincount((drawn + shift).ravel(), minlength=draws * units)
    of_units = of_units.reshape(draws, units)
    if units == per_unit.sum():
        return of_units.astype(float)
    random = np.random.default_rng((seed, 1))
    found = np.empty((draws, per_unit.sum()))
    first = np.cumsum(per_unit) - per_unit
    for size in np.unique(per_unit):
        alike = np.flatnonzero(per_unit == size)
        of_talks = random.multinomial(of_units[:, alike] * size, np.full(size, 1 / size))
        found[:, first[alike][:, None] + np.arange(size)] = of_talks
    return found


def times_together(whose: Sequence[str], draws: int, seed: int) -> np.ndarray:
    """How often each resample has each thing, where `whose` are their units and a unit is drawn with all that it has:
    shape (draws, things)."""
    units, of = np.unique(whose, return_inverse=True)
    return times_drawn((1,) * len(units), draws, seed)[:, of]


def ends(drawn: np.ndarray, n: int) -> list[float]:
    """The ends of the 95 % interval of a figure, from its values in all resamples of `n` units; without those that have
    none."""
    return [round(float(end), 6) for end in np.nanquantile(drawn, (tail(n), 1 - tail(n)))]


def tail(n: int) -> float:
    """The share of draws beyond each end of the 95 % interval: of many units 0.025, of fewer less, as Student's t is
    wider than the normal distribution, and as the mean of a resample of n units varies less by √((n − 1) / n)."""
    return float(norm.sf(t.isf((1 - LEVEL) / 2, n - 1) * np.sqrt(n / (n - 1)))) if n > 1 else 0.0


def p_value(other_side: float, n: int) -> float:
    """Two-sided p where this share of the draws of `n` units is on the other side of zero: below 0.05 where the share
    is below `tail`."""
    return min(1.0, float(2 * t.sf(norm.isf(other_side) * np.sqrt((n - 1) / n), n - 1))) if n > 1 else 1.0


def _named(units: Units) -> set[tuple[str, int]]:
    return {(unit, sample) for unit, samples in units.items() for sample in samples}


def _means(metrics: Sequence[Units], drawn_from: Talks, draws: int, seed: int) -> tuple[float, np.ndarray]:
    """The mean over metrics of each one's mean, and what it is in each resample, shape (draws,)."""
    if not metrics or not all(metrics):
        raise ValueError("There is nothing to draw from: no scenario has a value of a metric.")
    values = [[units.get(u, {}).get(s, ()) for u, samples in drawn_from.items() for s in samples] for units in metrics]
    sums, counts = (np.array([[of(v) for v in row] for row in values], float) for of in (sum, len))
    times = times_drawn(tuple(map(len, drawn_from.values())), draws, seed)
    with np.errstate(invalid="ignore"):  # 0 / 0 where none was drawn
        drawn = np.nanmean((times @ sums.T) / (times @ counts.T), axis=1)
    return round(float(np.mean(sums.sum(axis=1) / counts.sum(axis=1))), 6), drawn
