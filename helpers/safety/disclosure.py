"""That she is an AI: said at the start, when somebody asks in earnest, and again after long use.

In: a jurisdiction's profile out of a dated file, in which the sources of the laws stand. Out: the notices, in Japanese.
"""

from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from helpers.settings import ROOT
from helpers.yaml_files import read_yaml

FILE = ROOT / "data" / "safety" / "jurisdictions.yaml"
STRICTEST = "strictest"
_WHOM = ("nobody", "minors", "everyone")
Whom = Literal["nobody", "minors", "everyone"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reminder(_Strict):
    """Every how many hours of talk `whom` is told again."""

    hours: float = Field(gt=0, le=24)
    whom: Whom


class Profile(_Strict):
    """What one law asks for. `in_force` is the day since which it does."""

    law: str
    in_force: date
    notice_at_start: bool
    reminder: Reminder | None
    break_reminder: Whom
    unsuitable_for_minors_notice: bool
    sources: list[str] = Field(min_length=1)

    def reminder_hours(self, minor: bool) -> float | None:
        """Hours between two reminders to this user; None if there is none."""
        return self.reminder.hours if self.reminder and _holds(self.reminder.whom, minor) else None

    def asks_for_a_break(self, minor: bool) -> bool:
        """Whether a reminder tells this user to take a break."""
        return _holds(self.break_reminder, minor)


class Jurisdictions(_Strict):
    """The file: when it was checked, and the profiles by name."""

    checked: date
    profiles: dict[str, Profile] = Field(min_length=1)


@cache
def load_jurisdictions(file: Path = FILE) -> Jurisdictions:
    """The file's content.

    Raises:
        ValueError: the file breaks the schema; the message names each field.
    """
    return read_yaml(file, Jurisdictions, "file of jurisdictions")


def profile(name: str = STRICTEST, file: Path = FILE) -> Profile:
    """One profile by name; "strictest" has the strictest duty of each.

    Raises:
        ValueError: there is no such profile; the message lists those there are.
    """
    known = load_jurisdictions(file).profiles
    if name == STRICTEST:
        return _strictest(list(known.values()))
    if name not in known:
        raise ValueError(f"There is no jurisdiction {name!r}; there are {', '.join([STRICTEST, *known])}.")
    return known[name]


def opening_notice(known: Profile, name: str) -> str:
    """What is shown before the first turn; `name` is the companion's. Empty if the profile asks for nothing."""
    parts = []
    if known.notice_at_start:
        parts.append(
            f"{name}はAIです。人間ではありません。医療機器でもなく、医師や相談員、身近な人の代わりにはなれません。"
        )
    if known.unsuitable_for_minors_notice:
        parts.append("AIとの会話は、18歳未満の方には向かないことがあります。")
    return "\n".join(parts)


def reminder(known: Profile, name: str, minor: bool) -> str:
    """What is shown after long use."""
    told = f"お話が長くなりました。{name}はAIで、人間ではありません。"
    return told + ("目を休めて、少し休憩しませんか。" if known.asks_for_a_break(minor) else "")


def answer(name: str) -> str:
    """What is shown to somebody who asks in earnest, before her own words."""
    return f"{name}はAIです。人間ではありません。"


def _holds(whom: Whom, minor: bool) -> bool:
    return whom == "everyone" or (whom == "minors" and minor)


def _strictest(profiles: list[Profile]) -> Profile:
    reminders = [p.reminder for p in profiles if p.reminder]
    widest = max((r.whom for r in reminders), key=_WHOM.index, default="nobody")
    return Profile(
        law="; ".join(p.law for p in profiles),
        in_force=max(p.in_force for p in profiles),
        notice_at_start=any(p.notice_at_start for p in profiles),
        reminder=Reminder(hours=min(r.hours for r in reminders), whom=widest) if reminders else None,
        break_reminder=max((p.break_reminder for p in profiles), key=_WHOM.index),
        unsuitable_for_minors_notice=any(p.unsuitable_for_minors_notice for p in profiles),
        sources=[source for p in profiles for source in p.sources],
    )
