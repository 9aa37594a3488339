"""A judge's marks, summed up by arm.

In: verdicts, and which talk is whose. Out: for each axis and arm a mean mark, 1 to 5, with its interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from helpers.evaluate.bootstrap import Interval, Units, interval
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


def means(
    found: Mapping[tuple[str, str], Verdict],
    whose: Mapping[str, tuple[str, str]],
    axes: Sequence[Axis],
    draws: int,
    seed: int,
) -> dict[str, dict[str, Interval]]:
    """Axis → arm → its mean mark; an arm of which nothing was marked is not there."""
    marks = {axis.key: by_arm(found, whose, axis.key) for axis in axes}
    return {key: {arm: interval(units, draws, seed) for arm, units in of.items()} for key, of in marks.items()}


def as_json(found: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, dict]]:
    """`means` for a record."""
    return {axis: {arm: asdict(mean) for arm, mean in of.items()} for axis, of in found.items()}


def table(found: Mapping[str, Mapping[str, Interval]], axes: Sequence[Axis], arms: Sequence[str]) -> list[list[str]]:
    """One row an axis, from `means`: its title, then "mean [low, high]" of each of `arms`, "–" where nothing was
    marked."""
    return [[axis.title, *(str(found[axis.key].get(arm, "–")) for arm in arms)] for axis in axes]
