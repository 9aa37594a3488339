"""A talk between people, message by message, as an export gives it.

In: what a reader of one format found. Out: a `Talk`: the messages that can be learned from, and the lines that cannot,
each with its reason. A message remembers what was left out before it: it may answer that.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from helpers.conversations import Message
from helpers.jsonl import reason_of, whole

NO_WORDS = "it is a sticker, a picture, a call or a notice, and only words are read"
# Also as Excel writes it in Japan (2026/1/4 9:03), which ISO 8601 does not know.
_TIME = re.compile(
    r"(?P<y>\d{4})[-/.年](?P<m>\d{1,2})[-/.月](?P<d>\d{1,2})日?(?:\(.\))?"
    r"(?:[\sT]*(?P<half>午前|午後)?\s?(?P<hour>\d{1,2})[:時](?P<minute>\d{1,2})"
    r"(?:[:分](?P<second>\d{1,2})(?:\.\d+)?秒?|分)?\s?(?P<end>[AP]M)?)?"
)


@dataclass(frozen=True)
class Missed:
    """A message that was left out: whose it is, "" if that cannot be told or if it is both's, as a call is."""

    speaker: str = ""
    sticker: bool = False


MISSED = Missed()


@dataclass(frozen=True)
class Said:
    """One message. `line` counts from 1; `at` is None if the file gives no time, `talk` "" if it holds one talk;
    `missed` was left out between the message before and this one."""

    line: int
    speaker: str
    text: str
    at: datetime | None = None
    talk: str = ""
    missed: tuple[Missed, ...] = ()


@dataclass
class Talk:
    """The messages of an export, in order, and what in it is no message that can be learned."""

    said: list[Said] = field(default_factory=list)
    left_out: list[tuple[int, str, str]] = field(default_factory=list)  # line, reason, text
    _missed: list[Missed] = field(default_factory=list)  # since the last message

    def add(
        self,
        line: int,
        speaker: object,
        text: object,
        time: object = None,
        words: bool = True,
        talk: str = "",
        sticker: bool = False,
    ) -> None:
        """Add a message, or what is wrong with it.

        Args:
            time: a datetime, or how it is written in the file; None if it is not there. One that cannot be read is a
                fault: where all are written in a way that is not known, a year would be read as one conversation.
            words: False for what is known to be a sticker, a call, …
        """
        try:
            if not words or text is None or text == "" or (isinstance(text, str) and not text.strip()):
                raise ValueError(NO_WORDS)
            if not isinstance(text, str):
                raise ValueError("what is said in it is no text")
            if not isinstance(speaker, str) or not speaker.strip():
                raise ValueError("it does not say who speaks")
            for part in (speaker, text):
                _check(part)
            at, missed = _moment(time), tuple(self._missed)
            self.said.append(Said(line, _name(speaker), text.strip(), at, talk, missed))
            self._missed.clear()
        except ValueError as error:
            self.leave_out(line, reason_of(error), text, Missed(_name(speaker), sticker))

    def leave_out(self, line: int, reason: str, text: object, missed: Missed | None = MISSED) -> None:
        """Note that a line cannot be learned; `missed` is None if nobody said it."""
        self._missed += [missed] if missed else []
        shown = "" if text is None else str(text).encode("utf-8", "replace").decode("utf-8")
        self.left_out.append((line, reason, shown))


def _check(words: str) -> None:
    if isinstance(broken := whole(words), ValueError):
        raise broken
    Message(role="user", content=words)


def _name(speaker: object) -> str:
    return " ".join(speaker.splitlines()).strip() if isinstance(speaker, str) else ""


def _moment(time: object) -> datetime | None:
    if time is None or time == "" or isinstance(time, datetime):
        return time or None
    try:
        return datetime.fromisoformat(str(time).replace("/", "-")).replace(tzinfo=None)
    except ValueError:
        found = _TIME.fullmatch(str(time).strip())
    try:
        return datetime(*(int(found[key]) for key in "ymd")) + time_of_day(found)
    except (TypeError, ValueError):
        raise ValueError(f"its time {time!r} is none such as 2026-11-24 21:03 or 2026/1/4 9:03") from None


def time_of_day(found: re.Match) -> timedelta | None:
    """What `hour` and `minute` say, with 午前 or 午後 in `half` or AM or PM in `end`; None if there is no such time."""
    parts = found.groupdict()
    hour, minute, second = (int(parts.get(key) or 0) for key in ("hour", "minute", "second"))
    if parts["half"] or parts["end"]:
        hour = hour % 12 + 12 * (parts["half"] == "午後" or parts["end"] == "PM")
    return timedelta(hours=hour, minutes=minute, seconds=second) if hour < 24 and max(minute, second) < 60 else None
