"""A judge's marks, summed up by arm.

In: verdicts, and which talk is whose. Out: one row an axis, a mean mark with its interval for each arm.
"""

from collections.abc import Mapping, Sequence

from helpers.evaluate.bootstrap import Units, interval
from helpers.evaluate.judge import Verdict
from helpers.evaluate.rubrics import Axis


def by_arm(
    found: Mapping[tuple[str, str], Verdict], whose: Mapping[str, tuple[str, str]], axis: str
) -> dict[str, Units]:
    """Arm → scenario → its marks on one axis, as `bootstrap` takes them; only the first sample of a scenario is judged.
    `whose` is of `questionnaire.arms_and_units`."""
    marks: dict[str, dict[str, dict[int, list[float]]]] = {}
    for (talk, key), verdict in found.items():
        if key == axis:
            arm, unit = whose[talk]
            marks.setdefault(arm, {}).setdefault(unit, {0: []})[0].append(verdict.mark)
    return marks


def table(
    found: Mapping[tuple[str, str], Verdict],
    whose: Mapping[str, tuple[str, str]],
    axes: Sequence[Axis],
    arms: Sequence[str],
    draws: int,
    seed: int,
) -> list[list[str]]:
    """One row an axis: its title, then "mean [low, high]" of each of `arms`, "–" where nothing was marked."""
    rows = []
    for axis in axes:
        marks = by_arm(found, whose, axis.key)
        rows.append([axis.title, *(str(interval(marks[a], draws, seed)) if a in marks else "–" for a in arms)])
    return rows
