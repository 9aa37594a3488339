"""Whom to call: help lines in Japan from a dated file, and the calm words that come before them.

In: the kind of crisis, who is in danger, whether the user is a minor. Out: a message in Japanese that is shown before
anything she says, or all lines, for who looks for one. Numbers change; the file says when they were checked, and a
warning is logged once it is a year old.
"""

import logging
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from helpers.safety.labelled import KINDS, Kind
from helpers.settings import ROOT
from helpers.yaml_files import read_yaml

FILE = ROOT / "data" / "safety" / "help_lines.yaml"
MAX_AGE = timedelta(days=365)
MOST_LINES = 5
WHO_SPEAKS = "これはAIからの案内です。AIは医療機器ではなく、医師や相談員の代わりにはなれません。"
EMERGENCY = "いま命の危険があるときは119番（救急）、暴力や犯罪の危険があるときは110番（警察）に電話してください。"
_TRUSTED_ADULT = "保健室の先生や家族など、話しても大丈夫だと思える大人にも伝えてください。"
_AGAIN = "つらさが続いているのですね。次の窓口では、人が話を聞いてくれます。"
_log = logging.getLogger(__name__)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HelpLine(_Strict):
    """A telephone line. `hours` are words for its users; None where they are not known for sure."""

    name: str
    number: str = Field(pattern=r"^#?[0-9][0-9-]+$")
    hours: str | None = None
    free: bool
    whom: Literal["everyone", "minors"]
    kinds: list[Kind] = Field(min_length=1)
    third_person: bool
    sources: list[str] = Field(min_length=1)

    @field_validator("sources")
    @classmethod
    def _addresses(cls, sources: list[str]) -> list[str]:
        for source in sources:
            if not source.startswith("https://") and not source.startswith("http://"):
                raise ValueError(f"{source!r} is no address of a page")
        return sources

    def __str__(self) -> str:
        known = [part for part in (self.hours, "無料" if self.free else None) if part]
        return f"・{self.name} {self.number}" + (f"（{'、'.join(known)}）" if known else "")


class Words(_Strict):
    """The first sentences of a message: to the one in danger, and to one who worries about somebody."""

    to_self: str = Field(alias="self")
    to_other: str = Field(alias="other")


class HelpLines(_Strict):
    """The file. For every kind there are words, and a line that everyone may call, for oneself and for others."""

    checked: date
    overview: str
    lines: list[HelpLine]
    words: dict[Kind, Words]

    @model_validator(mode="after")
    def _every_kind_has_words_and_a_line(self) -> "HelpLines":
        for kind in KINDS:
            if kind not in self.words:
                raise ValueError(f"there are no words for {kind}")
            for third_person in (False, True):
                if not any(line.whom == "everyone" for line in self.fitting(kind, third_person, minor=False)):
                    raise ValueError(f"there is no line for {kind} ({'others' if third_person else 'oneself'})")
        return self

    def fitting(self, kind: Kind, third_person: bool, minor: bool) -> list[HelpLine]:
        """The lines for one case, those for minors left out for adults, at most `MOST_LINES`."""
        fit = [
            line
            for line in self.lines
            if kind in line.kinds and (line.third_person or not third_person) and (minor or line.whom == "everyone")
        ]
        return fit[:MOST_LINES]


@cache
def load_help_lines(file: Path = FILE) -> HelpLines:
    """The file's content.

    Raises:
        ValueError: the file breaks the schema; the message names each field.
    """
    return read_yaml(file, HelpLines, "file of help lines")


def calm_message(
    kind: Kind, third_person: bool = False, minor: bool = False, again: bool = False, today: date | None = None
) -> str:
    """What is shown in a crisis, before any word of hers.

    Args:
        third_person: somebody else is in danger, not the user.
        minor: the user is under age.
        again: the whole message was shown a while ago; lines and emergency numbers alone are repeated.
        today: for the age of the file; the system's date if None.
    """
    known = _known(today)
    words = known.words[kind]
    begin = [_AGAIN] if again else [words.to_other if third_person else words.to_self, WHO_SPEAKS]
    end = [_TRUSTED_ADULT] if minor and not again else []
    return "\n".join([*begin, *_lines(known, known.fitting(kind, third_person, minor)), *end])


def directory(minor: bool = False, today: date | None = None) -> str:
    """All lines that the user may call, for whoever asks for them; the arguments are as in `calm_message`."""
    known = _known(today)
    return "\n".join(_lines(known, [line for line in known.lines if minor or line.whom == "everyone"]))


def _lines(known: HelpLines, lines: list[HelpLine]) -> list[str]:
    return [EMERGENCY, *map(str, lines), f"・ほかの窓口 {known.overview}"]


def _known(today: date | None) -> HelpLines:
    known = load_help_lines()
    if (today or date.today()) - known.checked > MAX_AGE:
        _warn(known.checked)
    return known


@cache
def _warn(checked: date) -> None:
    _log.warning("The help lines were last checked on %s, over a year ago: check %s.", checked, FILE.name)
