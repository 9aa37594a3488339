"""What people answered: the mean of each arm, and how two arms differ, with intervals.

In: ratings of `questionnaire.load_ratings`. Out: table rows. A resample draws scenarios, and in each of them as many
raters as it has. A difference is paired: over the answers of those who judged both arms in the same scenario, so that
how strict somebody is, and how easy a scenario, falls out of it. What other people would say is not in the intervals.
"""

from collections.abc import Sequence

from helpers.evaluate.bootstrap import LEVEL, Difference, Units, holm, in_both, interval, paired_difference
from helpers.evaluate.gate import MIN_SCENARIOS
from helpers.evaluate.power import DIFFERENCE
from helpers.evaluate.questionnaire import QUESTIONS

COLUMNS = ["arm", *QUESTIONS, "answers"]
DIFFERENCE_COLUMNS = ["arms", "question", "scenarios", "difference [95 % interval]", "p (Holm)", "verdict"]


def means(ratings: Sequence[dict], draws: int, seed: int) -> list[list[str]]:
    """One row an arm, as `COLUMNS` names them: its mean with the interval of each question ("–" without answers; of one
    scenario the mean alone), the number of answers."""
    rows = []
    for arm in dict.fromkeys(r["arm"] for r in ratings):
        cells = [_mean(by_unit(ratings, arm, question), draws, seed) for question in QUESTIONS]
        rows.append([arm, *cells, str(sum(r["arm"] == arm for r in ratings))])
    return rows


def _mean(units: Units, draws: int, seed: int) -> str:
    if not units:
        return "–"
    found = interval(units, draws, seed)
    return str(found) if found.n > 1 else f"{found.mean:.2f} (1 scenario)"


def differences(
    ratings: Sequence[dict], pairs: Sequence[tuple[str, str]], draws: int, seed: int
) -> dict[tuple[str, str, str], Difference]:
    """(arm, whom it has to beat, question) → the difference of the two, where both were rated by the same people in
    the same scenarios."""
    found = {}
    for arm, base in pairs:
        for question in QUESTIONS:
            mine, theirs = in_both(by_unit(ratings, arm, question), by_unit(ratings, base, question))
            if mine:
                found[arm, base, question] = paired_difference(mine, theirs, draws, seed)
    return found


def difference_table(found: dict[tuple[str, str, str], Difference]) -> list[list[str]]:
    """One row a difference, as `DIFFERENCE_COLUMNS` names them; those of fewer than `MIN_SCENARIOS` scenarios show
    nothing. p is corrected over all others."""
    enough = [asked for asked, difference in found.items() if difference.n >= MIN_SCENARIOS]
    corrected = dict(zip(enough, holm([found[asked].p for asked in enough]), strict=True))
    rows = []
    for (arm, base, question), d in found.items():
        p = corrected.get((arm, base, question))
        told = ["–", "–", f"it takes {MIN_SCENARIOS} scenarios"] if p is None else [str(d), f"{p:.3g}", _verdict(d, p)]
        rows.append([f"{arm} − {base}", question, str(d.n), *told])
    return rows


def _verdict(d: Difference, p: float) -> str:
    if p > 1 - LEVEL or d.low <= 0 <= d.high:
        return "no difference shown"
    size = "" if abs(d.mean) >= DIFFERENCE else ", but too little to be felt"
    return ("better" if d.mean > 0 else "worse") + size


def by_unit(ratings: Sequence[dict], arm: str, question: str) -> dict[str, dict[str, list[int]]]:
    """Scenario → rater → his answer to `question` about `arm`, as `bootstrap` takes them."""
    units: dict[str, dict[str, list[int]]] = {}
    for r in ratings:
        if (r["arm"], r["question"]) == (arm, question):
            units.setdefault(r["unit"], {})[r["rater"]] = [r["value"]]
    return units
