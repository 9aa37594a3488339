"""How many ratings does it take to tell two arms apart?

In: ratings, or an assumption. Out: for a number of raters how many scenarios, and how many answers to one question,
show a difference of `DIFFERENCE` points with a probability of `POWER`, by a paired t-test over scenarios. Each rater
judges both arms in each scenario: how strict he is, and how easy the scenario, falls out of the difference. Of several
comparisons each is tested at its share of `SIGNIFICANCE`, as the first of Holm's correction is. There are never fewer
scenarios than `opinions` needs to tell anything so surely.
Source: the sample size of a paired t-test, e.g. Cohen, Statistical Power Analysis, 1988, chapter 2.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from helpers.evaluate.bootstrap import MIN_SCENARIOS, least_p

DIFFERENCE = 0.5  # points of the five; less would hardly be felt in a talk
POWER, SIGNIFICANCE = 0.8, 0.05
RATERS = (1, 3, 5)
_ENOUGH = 10  # scenarios with two raters, to estimate a spread from


@dataclass(frozen=True)
class Spread:
    """Variances of a paired difference, in squared points: `scenarios` of the true difference from one scenario to
    another, `raters` of one rater's difference about it. `source` says where they come from."""

    scenarios: float
    raters: float
    source: str


# As if single marks had a standard deviation of one point, of which half the variance is the rater's own.
ASSUMED = Spread(0.5, 1.0, "assumed")


@dataclass(frozen=True)
class Need:
    """Scenarios and, over both arms and all raters, answers to one question."""

    raters: int
    scenarios: int
    ratings: int


def needed(spread: Spread, raters: int, difference: float = DIFFERENCE, comparisons: int = 1) -> Need:
    """What it takes with so many raters, where so many comparisons are corrected for.

    Raises:
        ValueError: a difference of zero or less, which no number of ratings shows, no rater, or no comparison.
    """
    if difference <= 0 or raters < 1 or comparisons < 1:
        raise ValueError("The power estimate needs a difference above 0, and one rater and comparison at least.")
    alpha = SIGNIFICANCE / comparisons
    effect = difference / np.sqrt(max(spread.scenarios + spread.raters / raters, 1e-9))
    # The normal approximation asks for a little less than the t-test.
    z = stats.norm.isf(alpha / 2) + stats.norm.ppf(POWER)
    scenarios = max(fewest(comparisons), int((z / effect) ** 2))
    while _power(effect, scenarios, alpha) < POWER:
        scenarios += 1
    return Need(raters, scenarios, 2 * raters * scenarios)


def fewest(comparisons: int = 1) -> int:
    """Scenarios of which all on one side are a difference, where so many comparisons are corrected for."""
    n = MIN_SCENARIOS
    while least_p(n) >= SIGNIFICANCE / comparisons:
        n += 1
    return n


def _power(effect: float, n: int, alpha: float) -> float:
    """Of a two-sided paired t-test at level `alpha` with `n` differences whose mean is `effect` standard deviations."""
    bound = stats.t.isf(alpha / 2, n - 1)
    # The noncentral t of scipy gives nan where the noncentrality is large; the power is 1 there.
    shift = min(effect * np.sqrt(n), 30)
    return float(stats.nct.sf(bound, n - 1, shift))


def measured(ratings: Sequence[dict], question: str, a: str, b: str) -> Spread:
    """The spread between arms a and b, from `questionnaire.load_ratings`; `ASSUMED` if fewer than ten scenarios have
    two raters who judged both arms. Variance components by one-way analysis of variance over scenarios."""
    values = {(r["unit"], r["rater"], r["arm"]): r["value"] for r in ratings if r["question"] == question}
    differences: dict[str, list[float]] = defaultdict(list)
    for (unit, rater, arm), value in values.items():
        if arm == a and (unit, rater, b) in values:
            differences[unit].append(value - values[unit, rater, b])
    groups = [np.array(d) for d in differences.values() if len(d) > 1]
    if len(groups) < _ENOUGH:
        return ASSUMED
    sizes = np.array([len(g) for g in groups])
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / (sizes.sum() - len(groups))
    grand = np.concatenate(groups).mean()
    between = sum(n * (g.mean() - grand) ** 2 for n, g in zip(sizes, groups, strict=True)) / (len(groups) - 1)
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(groups) - 1)
    return Spread(max(float((between - within) / size), 0.0), float(within), f"measured on {len(groups)} scenarios")


COLUMNS = ["raters", "scenarios", "answers to one question, both arms", "spread"]


def table(spread: Spread, comparisons: int = 1) -> list[list[str]]:
    """One row for each number of raters; `comparisons` is how many are corrected for."""
    found = [needed(spread, raters, comparisons=comparisons) for raters in RATERS]
    return [[str(n.raters), str(n.scenarios), str(n.ratings), spread.source] for n in found]
