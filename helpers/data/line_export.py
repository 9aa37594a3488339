"""LINE's exported talk.

In: the text file that LINE saves, from a phone (time, name and words between tabs) or from a PC (between spaces). Out:
a `Talk`. A line that begins with no time goes on with the message before it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from helpers.data.talk import NO_WORDS, Talk

DATE = re.compile(
    r"(?:(?P<y>\d{4})[/.年](?P<m>\d{1,2})[/.月](?P<d>\d{1,2})日?|\w{3}, (?P<m2>\d{1,2})/(?P<d2>\d{1,2})/(?P<y2>\d{4}))"
    r"\s*(?:\(?(?:[月火水木金土日](?:曜日?)?|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*)\)?)?\s*$"
)
_TIME = r"(?P<half>午前|午後)?(?P<hour>\d{1,2}):(?P<minute>\d{2}) ?(?P<end>[AP]M)?"
_PHONE = re.compile(rf"{_TIME}\t(?P<speaker>[^\t]*)(?:\t(?P<text>.*))?$")
_PC = re.compile(rf"{_TIME} (?P<rest>\S.*)$")
_HEAD = re.compile(r"\[LINE\] (?:(?P<name>.+)とのトーク履歴|Chat history with (?P<name2>.+))$")
_NOT_WORDS = re.compile(
    r"^(?:\[(?:スタンプ|写真|動画|画像|アルバム|ファイル|ボイスメッセージ|位置情報|連絡先|ノート|"
    r"Sticker|Photo|Video|File|Voice message|Location|Contact)\].*"
    r"|☎.*|.*メッセージの送信を取り消しました。?|.*unsent a message\.?)$"
)
_LONGEST_NAME = 4  # words
_OFTEN, _NEARLY_ALL = 3, 0.8  # messages, share of the messages that begin alike


@dataclass
class _Entry:
    """What begins with a time: its lines so far, and why it cannot be learned."""

    line: int
    speaker: str
    words: list[str]
    at: datetime | None
    section: str
    reason: str = ""


def line_talk(text: str, companion: str | None = None) -> Talk:
    """The messages in an export. `companion` helps to tell a name with spaces in it where there are few messages."""
    lines = re.split(r"\r\n|\n|\r", text)
    on_pc = not any(_PHONE.match(line) for line in lines)
    names = _names_on_pc(lines, companion) if on_pc else []
    talk, entries, day, section = Talk(), [], None, ""
    for number, line in enumerate(lines, start=1):
        if date := DATE.match(line):
            day = _day(date)
            # Nothing after a day that does not exist goes on with what was said before it.
            section = "" if day else f"line {number}"
            if day is None:
                talk.leave_out(number, "there is no such day in the calendar", line)
        elif found := (_PC if on_pc else _PHONE).match(line):
            speaker, words = _on_pc(found["rest"], names) if on_pc else (found["speaker"], found["text"] or "")
            at = _time_of_day(found)
            if at is None:
                entries.append(_Entry(number, "", [line], None, "", "there is no such time of day"))
            elif not speaker or not words or _NOT_WORDS.match(words):
                entries.append(_Entry(number, "", [line], None, "", NO_WORDS))
            else:
                entries.append(_Entry(number, speaker, [words], day and day + at, section))
        elif entries:  # else it is the head: whose talk, saved when
            entries[-1].words.append(line)
    for entry in entries:
        words = "\n".join(entry.words).rstrip()
        if entry.reason:
            talk.leave_out(entry.line, entry.reason, words)
        else:
            talk.add(entry.line, entry.speaker, _unquoted(words), entry.at, talk=entry.section)
    talk.left_out.sort(key=lambda left: left[0])
    return talk


def _day(date: re.Match) -> datetime | None:
    try:
        return datetime(*(int(date[k] or date[k + "2"]) for k in "ymd"))
    except ValueError:
        return None


def _time_of_day(found: re.Match) -> timedelta | None:
    hour, minute = int(found["hour"]), int(found["minute"])
    if found["half"] or found["end"]:
        hour = hour % 12 + 12 * (found["half"] == "午後" or found["end"] == "PM")
    return timedelta(hours=hour, minutes=minute) if hour < 24 and minute < 60 else None


def _unquoted(text: str) -> str:
    """A message of several lines stands in quotation marks, its own marks doubled."""
    quoted = "\n" in text and text.startswith('"') and text.endswith('"')
    return text[1:-1].replace('""', '"') if quoted else text


# -- From a PC, a space ends a name and may stand in it ----------------------------------------------------------------


def _on_pc(rest: str, names: Sequence[str]) -> tuple[str, str]:
    """(speaker, words) of what follows the time: by the first of `names` that fits, else by the first space. A notice
    (佐藤 美咲が参加しました) has no speaker."""
    if any(" " in name and rest.startswith(f"{name}が") for name in names):
        return "", rest
    speaker = next((name for name in names if rest.startswith(f"{name} ")), rest.partition(" ")[0])
    return speaker, rest[len(speaker) + 1 :]


def _names_on_pc(lines: Sequence[str], companion: str | None) -> list[str]:
    """The speakers' names: the head's and `companion`, then what nearly all messages begin with that begin alike."""
    heads = (found for line in lines[:5] if (found := _HEAD.match(line)))
    told = [name for found in heads for name in (found["name"], found["name2"]) if name]
    said = [found["rest"] for line in lines if (found := _PC.match(line)) and not _NOT_WORDS.match(found["rest"])]
    told += [companion] if companion else []
    common = _common([tuple(rest.split(" ")) for rest in said])
    return [name for names in (told, common) for name in sorted(names, key=len, reverse=True)]


def _common(said: Sequence[tuple[str, ...]], words: int = 1) -> Iterator[str]:
    """Names of `words` words or more that the messages, cut into words, begin with."""
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for one in said:
        groups.setdefault(one[:words], []).append(one)
    for name, group in groups.items():
        yield " ".join(name)
        longer = Counter(one[: words + 1] for one in group if len(one) > words + 1)
        often = {name for name, count in longer.items() if count >= _OFTEN}
        if words < _LONGEST_NAME and sum(longer[name] for name in often) >= _NEARLY_ALL * len(group):
            yield from _common([one for one in group if one[: words + 1] in often], words + 1)
