"""Do people agree? Krippendorff's α for ordinal values, with an interval by bootstrap over scenarios.

In: sample → the values that its raters gave. Out: α, 1 for full agreement, 0 for what chance gives, below it for less.
By custom 0.8 and more is reliable, from 0.667 on one may draw tentative conclusions; the lower end must reach it.
Source: Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011; Content Analysis, 2018, chapter 12.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helpers.evaluate.bootstrap import MIN_SCENARIOS, ends, times_together
from helpers.evaluate.questionnaire import QUESTIONS, SCALE, by_sample

RELIABLE, TENTATIVE = 0.8, 0.667


@dataclass(frozen=True)
class Alpha:
    """α over the `n` samples with two raters or more, and its 95 % interval over their `scenarios`; nan if n is 0 or
    all gave one value. Of fewer than `MIN_SCENARIOS` the interval tells nothing: they are drawn too much alike."""

    value: float
    low: float
    high: float
    n: int
    scenarios: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]" if np.isfinite(self.value) else "–"

    @property
    def verdict(self) -> str:
        if not self.n:
            return "needs two people on the same sample"
        if not np.isfinite(self.value):
            return "undefined: everybody gave the same value"
        if self.scenarios < MIN_SCENARIOS:
            return f"it takes {MIN_SCENARIOS} scenarios"
        if self.low >= RELIABLE:
            return "reliable"
        return "tentative" if self.low >= TENTATIVE else "not shown that people agree"


def alpha(
    samples: Mapping[str, Sequence[int]], units: Mapping[str, str], scale: Sequence[int], draws: int, seed: int
) -> Alpha:
    """Ordinal α of the values, each one of `scale`. A sample with one value tells nothing and is left out. `units` has
    the scenario of each sample: what several arms say in one hangs together, and is drawn together."""
    rated = [sample for sample, values in samples.items() if len(values) > 1]
    if not rated:
        return Alpha(np.nan, np.nan, np.nan, 0, 0)
    counts = np.array([[list(samples[sample]).count(c) for c in scale] for sample in rated], float)
    values = np.arange(len(scale))
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs[:, values, values] -= counts
    coincidences = pairs / (counts.sum(axis=1) - 1)[:, None, None]
    whose = [units[sample] for sample in rated]
    drawn = _alpha(np.tensordot(times_together(whose, draws, seed), coincidences, 1))
    low, high = ends(drawn, len(set(whose))) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return Alpha(float(_alpha(coincidences.sum(axis=0)[None])[0]), low, high, len(counts), len(set(whose)))


def _alpha(coincidences: np.ndarray) -> np.ndarray:
    """α of each of n matrices of coincidences, shape (n, values, values)."""
    margins = coincidences.sum(axis=2)
    middles = margins.cumsum(axis=1) - margins / 2
    distance = (middles[:, :, None] - middles[:, None, :]) ** 2
    observed = (coincidences * distance).sum(axis=(1, 2))
    expected = (margins[:, :, None] * margins[:, None, :] * distance).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - (margins.sum(axis=1) - 1) * observed / expected, np.nan)


COLUMNS = ["question", "raters", "samples with two or more", "Krippendorff's α", "verdict"]


def table(ratings: Sequence[dict], draws: int, seed: int) -> list[list[str]]:
    """One row a question of the questionnaire, from `questionnaire.load_ratings`."""
    rows, units = [], {r["sample"]: r["unit"] for r in ratings}
    for question in QUESTIONS:
        found = alpha(by_sample(ratings, question), units, SCALE, draws, seed)
        raters = len({r["rater"] for r in ratings if r["question"] == question})
        rows.append([question, str(raters), str(found.n), str(found), found.verdict])
    return rows
