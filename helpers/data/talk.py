"""A talk between people, message by message, as an export gives it.

In: what a reader of one format found. Out: a `Talk`: the messages that can be learned from, and the lines that cannot,
each with its reason.
"""

from dataclasses import dataclass, field
from datetime import datetime

from helpers.conversations import Message
from helpers.jsonl import reason_of, whole

NO_WORDS = "it is a sticker, a picture, a call or a notice, and only words are read"


@dataclass(frozen=True)
class Said:
    """One message. `line` counts from 1; `at` is None if the file gives no time, `talk` "" if it holds one talk."""

    line: int
    speaker: str
    text: str
    at: datetime | None = None
    talk: str = ""


@dataclass
class Talk:
    """The messages of an export, in order, and what in it is no message that can be learned."""

    said: list[Said] = field(default_factory=list)
    left_out: list[tuple[int, str, str]] = field(default_factory=list)  # line, reason, text

    def add(
        self, line: int, speaker: object, text: object, time: object = None, words: bool = True, talk: str = ""
    ) -> None:
        """Add a message, or what is wrong with it.

        Args:
            time: a datetime, or how it is written in the file; None if it is not there.
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
            self.said.append(Said(line, " ".join(speaker.splitlines()).strip(), text.strip(), _moment(time), talk))
        except ValueError as error:
            self.leave_out(line, reason_of(error), text)

    def leave_out(self, line: int, reason: str, text: object) -> None:
        """Note that a line cannot be learned."""
        shown = "" if text is None else str(text).encode("utf-8", "replace").decode("utf-8")
        self.left_out.append((line, reason, shown))


def _check(words: str) -> None:
    if isinstance(broken := whole(words), ValueError):
        raise broken
    Message(role="user", content=words)


def _moment(time: object) -> datetime | None:
    if time is None or time == "" or isinstance(time, datetime):
        return time or None
    try:
        return datetime.fromisoformat(str(time).replace("/", "-")).replace(tzinfo=None)
    except ValueError:
        raise ValueError(f"its time {time!r} is none such as 2026-11-24 21:03") from None
