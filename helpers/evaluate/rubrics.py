"""Rubrics: what a judge is asked about a talk, as data.

In: `data/judge/<name>.yaml`. Out: axes, each with atomic statements that are answered by true or false before a mark
from 1 to 5 is given. Source of taking a judgement apart: Min et al., FActScore, EMNLP 2023.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from helpers.conversations import Text
from helpers.settings import ROOT
from helpers.yaml_files import read_yaml

FOLDER = ROOT / "data" / "judge"
MARKS = (1, 2, 3, 4, 5)
Key = Annotated[str, Field(pattern="^[a-z][a-z_]*$")]
Words = Annotated[Text, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Strict):
    """A statement that is true or false of a talk; `good` is which of the two speaks for the companion."""

    key: Key
    ask: Words
    good: bool


class Axis(_Strict):
    """One question of a rubric.

    Attributes:
        title: as tables show it.
        question: what people would be asked.
        marks: in words, what 1, 3 and 5 stand for.
    """

    key: Key
    title: Words
    question: Words
    rules: list[Rule] = Field(min_length=2)
    marks: dict[int, Words]

    @model_validator(mode="after")
    def _sound(self) -> "Axis":
        if len({rule.key for rule in self.rules}) < len(self.rules):
            raise ValueError(f"two rules of the axis {self.key} have the same key")
        if set(self.marks) != {1, 3, 5}:
            raise ValueError(f"the axis {self.key} must say what the marks 1, 3 and 5 stand for")
        return self


class Rubric(_Strict):
    """A file of axes; `source` says whose axes they are."""

    name: Key
    source: Words
    axes: list[Axis] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_of_each(self) -> "Rubric":
        if len({axis.key for axis in self.axes}) < len(self.axes):
            raise ValueError("two axes have the same key")
        return self


def read_rubric(name: str, folder: Path = FOLDER) -> Rubric:
    """The rubric in `<folder>/<name>.yaml`.

    Raises:
        FileNotFoundError: there is none; the message names those that there are.
        ValueError: it is not sound.
    """
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in folder.glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"There is no rubric {name!r} in {folder.name}: there is {known}.")
    return read_yaml(file, Rubric, "rubric")
