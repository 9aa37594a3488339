"""The scoreboard: arm × metric, each a mean with its interval, their total, and paired differences.

In: rows from `metrics.score`, and which metrics can be relied on. Out: a `Scoreboard`, as JSON and table
rows, and what changed since the one before. The total is the mean over the reliable metrics, each weighing the same,
that have a value in `MIN_SCENARIOS` scenarios of every arm: of fewer, one talk would move it by a tenth, and a resample
that draws none of them would be a total of something else. `NOT_IN_TOTAL` are those that never enter it.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from helpers.evaluate.bootstrap import (
    MIN_SCENARIOS,
    Difference,
    Interval,
    Units,
    difference_of_means,
    holm,
    in_both,
    interval,
    mean_of_means,
)
from helpers.evaluate.metrics import METRICS, Row, by_unit
from helpers.files import write_atomically

# A difference smaller than this would not be noticed by a user; set before any result was seen.
MINIMUM_DIFFERENCE = 0.05
TOTAL = "total"
NOT_IN_TOTAL = {"drift": "whoever was never in character cannot fall out of it"}
COMPARED = (TOTAL, "persona", "stops")


@dataclass(frozen=True)
class Comparison:
    """`arm` − `baseline` on one metric or on `TOTAL`; `p_holm` is corrected over all comparisons of the scoreboard."""

    arm: str
    baseline: str
    metric: str
    difference: Difference
    p_holm: float

    @property
    def verdict(self) -> str:
        d = self.difference
        if d.n < MIN_SCENARIOS:
            return "too few scenarios to show anything"
        if self.p_holm > 0.05 or d.low <= 0 <= d.high:
            return "no difference shown"
        size = "" if abs(d.mean) >= MINIMUM_DIFFERENCE else ", but too small to matter"
        return ("better" if d.mean > 0 else "worse") + size


@dataclass(frozen=True)
class Scoreboard:
    """arm → metric → interval; arm → total over the metrics of `total_of`, without any if there are none; the
    comparisons asked for; and arm → the majors that it fails: such an arm has failed, whatever its means."""

    arms: dict[str, dict[str, Interval]]
    totals: dict[str, Interval]
    reliable: tuple[str, ...]
    total_of: tuple[str, ...]
    comparisons: list[Comparison]
    failed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def titles(self) -> dict[str, str]:
        """metric → its title, marked if it is unreliable, or reliable and not in the total."""
        marks = {key: "" if key in self.total_of else " (not in the total)" for key in self.reliable}
        return {key: m.title + marks.get(key, " (unreliable)") for key, m in METRICS.items()}

    def left_out(self) -> dict[str, str]:
        """Reliable metric that is not in the total → why. Those without any value are left out here too."""
        found = {}
        for key in self.reliable:
            n = min(cells[key].n if key in cells else 0 for cells in self.arms.values())
            if key not in self.total_of and any(key in cells for cells in self.arms.values()):
                found[key] = NOT_IN_TOTAL.get(key, f"{n} of the {MIN_SCENARIOS} scenarios that it takes")
        return found

    def made_of(self) -> str:
        """Of which metrics the total is made, and why of no others, in words."""
        names = ", ".join(METRICS[key].title for key in self.total_of)
        said = f"The total is the mean of {names}." if names else "There is no total: too few scenarios were played."
        others = ", ".join(f"{METRICS[key].title} ({why})" for key, why in self.left_out().items())
        return f"{said} Reliable and not in it: {others}." if others else said

    def table(self) -> list[list[str]]:
        """One row a metric, the total first: its title, then "mean [low, high]" of each arm, or "–"."""
        rows = [[title_of(TOTAL), *(str(self.totals.get(arm, "–")) for arm in self.arms)]]
        for key, title in self.titles().items():
            rows.append([title, *(str(cells.get(key, "–")) for cells in self.arms.values())])
        return rows

    @property
    def columns(self) -> list[str]:
        return ["metric", *self._marked()]

    def _marked(self) -> list[str]:
        return [arm + (f" (failed: {', '.join(self.failed[arm])})" if arm in self.failed else "") for arm in self.arms]

    def comparison_table(self) -> list[list[str]]:
        """One row a comparison, as `COMPARISON_COLUMNS` names them; two arms are named in the first of theirs alone."""
        rows, named = [], set()
        for c in self.comparisons:
            pair = f"{c.arm} − {c.baseline}"
            shown = "" if pair in named else pair
            rows.append([shown, title_of(c.metric), str(c.difference), f"{c.p_holm:.3g}", c.verdict])
            named.add(pair)
        return rows

    def as_json(self) -> dict:
        return {
            "arms": {arm: {m: asdict(i) for m, i in cells.items()} for arm, cells in self.arms.items()},
            "totals": {arm: asdict(total) for arm, total in self.totals.items()},
            "reliable": list(self.reliable),
            "total_of": list(self.total_of),
            "left_out": self.left_out(),
            "failed": dict(self.failed),
            "comparisons": [asdict(c) | {"verdict": c.verdict} for c in self.comparisons],
            "minimum_difference": MINIMUM_DIFFERENCE,
        }

    def write(self, path: Path) -> None:
        """The one that was there is kept as `before(path)`, if it says anything else."""
        text = json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") != text:
            path.replace(before(path))
        write_atomically(path, text)

    def changes(self, path: Path) -> list[list[str]]:
        """What differs from the scoreboard that was at `path` before this one, as `CHANGE_COLUMNS` names it: each mean
        that differs by 0.005 or more, arms that are new, arms that were not played again. A total of other metrics than
        before is not compared, and the metrics are named."""
        if not before(path).exists():
            return []
        old = json.loads(before(path).read_text(encoding="utf-8"))
        rows = [[arm, "", "played", "not played", ""] for arm in old["arms"] if arm not in self.arms]
        was_of = old.get("total_of", old["reliable"])
        if was_of != list(self.total_of):
            rows.append(["", f"{TOTAL}, of", ", ".join(was_of) or "–", ", ".join(self.total_of) or "–", ""])
        for arm, cells in self.arms.items():
            if arm not in old["arms"]:
                rows.append([arm, "", "not played", "played", ""])
                continue
            same = was_of == list(self.total_of) and arm in self.totals
            pairs = [(title_of(TOTAL), old["totals"][arm], self.totals[arm])] if same else []
            pairs += [(METRICS[key].title, old["arms"][arm].get(key), cell) for key, cell in cells.items()]
            for title, was, now in pairs:
                then = Interval(**was) if was else None
                if then is None or abs(now.mean - then.mean) >= SHOWN_CHANGE:
                    change = f"{now.mean - then.mean:+.2f}" if then else ""
                    rows.append([arm, title, str(then or "–"), str(now), change])
        return rows


def title_of(metric: str) -> str:
    """The title of a metric, or of `TOTAL`."""
    return TOTAL if metric == TOTAL else METRICS[metric].title


def before(path: Path) -> Path:
    """Where the scoreboard is that was at `path` before."""
    return path.with_name(f"{path.stem}_before{path.suffix}")


SHOWN_CHANGE = 0.005
CHANGE_COLUMNS = ["arm", "metric", "before", "now", "change"]
COMPARISON_COLUMNS = ["arms", "metric", "difference [95 % interval]", "p (Holm)", "verdict"]


def scoreboard(
    rows: Sequence[Row],
    comparisons: Sequence[tuple[str, str]],
    draws: int,
    seed: int,
    reliable: Collection[str],
    in_full: Collection[str] = (),
    failed: Mapping[str, tuple[str, ...]] | None = None,
) -> Scoreboard:
    """Intervals for every arm and metric, totals over those of `reliable` that have scenarios enough, and paired
    differences of `comparisons` (arm, baseline) on `COMPARED`, of an arm of `in_full` on the total and every reliable
    metric. What has no value in both is not compared. `failed` are the majors of each arm that fails one."""
    kept = tuple(key for key in METRICS if key in reliable)
    units: dict[str, dict[str, Units]] = {}
    for arm in dict.fromkeys(row.arm for row in rows):
        units[arm] = {metric: found for metric in METRICS if (found := by_unit(rows, arm, metric))}
    arms = {arm: {metric: interval(values, draws, seed) for metric, values in of.items()} for arm, of in units.items()}
    enough = [m for m in kept if all(len(of.get(m, ())) >= MIN_SCENARIOS for of in units.values())]
    total_of = tuple(m for m in enough if m not in NOT_IN_TOTAL)
    totals = {arm: mean_of_means([of[m] for m in total_of], draws, seed) for arm, of in units.items() if total_of}
    found = {}
    for arm, base in comparisons:
        for metric in (TOTAL, *kept) if arm in in_full else COMPARED:
            metrics = total_of if metric == TOTAL else [metric]
            if difference := _difference(units[arm], units[base], metrics, draws, seed):
                found[arm, base, metric] = difference
    corrected = holm([difference.p for difference in found.values()])
    compared = [Comparison(*asked, d, p) for (asked, d), p in zip(found.items(), corrected, strict=True)]
    return Scoreboard(arms, totals, kept, total_of, compared, failed or {})


def _difference(
    a: Mapping[str, Units], b: Mapping[str, Units], metrics: Sequence[str], draws: int, seed: int
) -> Difference | None:
    """Of the means over `metrics`, on the talks in which both arms have a value; None if there are none."""
    both = [in_both(a[metric], b[metric]) for metric in metrics if metric in a and metric in b]
    both = [pair for pair in both if pair[0]]
    return difference_of_means(*zip(*both, strict=True), draws, seed) if both else None


def in_words(comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence for each pair of arms: in which metrics they differ, in which nothing is shown, with the figures."""
    sentences = []
    for arm, baseline in dict.fromkeys((c.arm, c.baseline) for c in comparisons):
        found: dict[str, list[str]] = {}
        for c in comparisons:
            if (c.arm, c.baseline) == (arm, baseline):
                found.setdefault(c.verdict, []).append(f"{title_of(c.metric)} ({c.difference})")
        parts = [f"{verdict} in {', '.join(metrics)}" for verdict, metrics in found.items()]
        sentences.append(f"{arm} against {baseline}: {'; '.join(parts)}.")
    return sentences
