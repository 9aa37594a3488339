"""The scoreboard: arm × metric, each a mean with its interval, their total, and paired differences.

In: rows from `metrics.score`, and which metrics can be relied on. Out: a `Scoreboard`, as JSON and table
rows, and what changed since the one before. The total is the mean over the reliable metrics, each weighing the same.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from helpers.evaluate.bootstrap import (
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
        if self.p_holm > 0.05 or d.low <= 0 <= d.high:
            return "no difference shown"
        size = "" if abs(d.mean) >= MINIMUM_DIFFERENCE else ", but too small to matter"
        return ("better" if d.mean > 0 else "worse") + size


@dataclass(frozen=True)
class Scoreboard:
    """arm → metric → interval; arm → total over the metrics of `reliable`; the comparisons asked for; and arm → the
    majors that it fails: such an arm has failed, whatever its means."""

    arms: dict[str, dict[str, Interval]]
    totals: dict[str, Interval]
    reliable: tuple[str, ...]
    comparisons: list[Comparison]
    failed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def titles(self) -> dict[str, str]:
        """metric → its title, marked if it is unreliable."""
        return {key: m.title + ("" if key in self.reliable else " (unreliable)") for key, m in METRICS.items()}

    def table(self) -> list[list[str]]:
        """One row a metric, the total first: its title, then "mean [low, high]" of each arm, or "–"."""
        rows = [[title_of(TOTAL), *map(str, self.totals.values())]]
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
        that differs by 0.005 or more, arms that are new, arms that were not played again."""
        if not before(path).exists():
            return []
        old = json.loads(before(path).read_text(encoding="utf-8"))
        rows = [[arm, "", "played", "not played", ""] for arm in old["arms"] if arm not in self.arms]
        for arm, cells in self.arms.items():
            if arm not in old["arms"]:
                rows.append([arm, "", "not played", "played", ""])
                continue
            pairs = [(title_of(TOTAL), old["totals"][arm], self.totals[arm])]
            pairs += [(METRICS[key].title, old["arms"][arm].get(key), cell) for key, cell in cells.items()]
            for title, was, now in pairs:
                then = Interval(**was) if was else None
                if then is None or abs(now.mean - then.mean) >= SHOWN_CHANGE:
                    change = f"{now.mean - then.mean:+.2f}" if then else ""
                    rows.append([arm, title, str(then or "–"), str(now), change])
        return rows


def title_of(metric: str) -> str:
    """The title of a metric, or of `TOTAL`."""
    return "total of the reliable" if metric == TOTAL else METRICS[metric].title


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
    """Intervals for every arm and metric, totals over the metrics of `reliable`, and paired differences of
    `comparisons` (arm, baseline) on `COMPARED`, of an arm of `in_full` on the total and every reliable metric. What has
    no value in both is not compared. `failed` are the majors of each arm that fails one.

    Raises:
        ValueError: no reliable metric has a value for an arm.
    """
    kept = tuple(key for key in METRICS if key in reliable)
    units: dict[str, dict[str, Units]] = {}
    for arm in dict.fromkeys(row.arm for row in rows):
        units[arm] = {metric: found for metric in METRICS if (found := by_unit(rows, arm, metric))}
    arms = {arm: {metric: interval(values, draws, seed) for metric, values in of.items()} for arm, of in units.items()}
    totals = {arm: mean_of_means([of[m] for m in kept if m in of], draws, seed) for arm, of in units.items()}
    found = {}
    for arm, base in comparisons:
        for metric in (TOTAL, *kept) if arm in in_full else COMPARED:
            if difference := _difference(units[arm], units[base], kept if metric == TOTAL else [metric], draws, seed):
                found[arm, base, metric] = difference
    corrected = holm([difference.p for difference in found.values()])
    compared = [Comparison(*asked, d, p) for (asked, d), p in zip(found.items(), corrected, strict=True)]
    return Scoreboard(arms, totals, kept, compared, failed or {})


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
