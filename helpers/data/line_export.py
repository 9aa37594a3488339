"""LINE's exported talk.

In: the text file that LINE saves, from a phone (time, name and words between tabs) or from a PC (between spaces). Out:
a `Talk`. A line that begins with no time goes on with the message before it, and so does one that only looks like the
head of a day or like a message.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from helpers.data.talk import MISSED, NO_WORDS, Missed, Talk, time_of_day

DATE = re.compile(
    r"(?:(?P<y>\d{4})[/.年](?P<m>\d{1,2})[/.月](?P<d>\d{1,2})日?|\w{3}, (?P<m2>\d{1,2})/(?P<d2>\d{1,2})/(?P<y2>\d{4}))"
    r"\s*(?P<weekday>\(?(?:[月火水木金土日](?:曜日?)?|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*)\)?)?\s*$"
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
_STICKER = ("[スタンプ]", "[Sticker]")
_CALL = "☎"
_UNSENT = re.compile(r"(?P<name>.+?)(?:がメッセージの送信を取り消しました。?| unsent a message\.?)$")
_DONE = re.compile(r"ました。?$")
_LONGEST_NAME = 4  # words
_OFTEN, _NEARLY_ALL = 3, 0.8  # messages, share of the messages that begin alike


class _Start(NamedTuple):
    """What a line says that begins with a time; the time of day is None if there is no such."""

    speaker: str
    words: str
    time: timedelta | None


@dataclass
class _Entry:
    """What begins with a time: its lines so far, and why it cannot be learned."""

    line: int
    speaker: str
    words: list[str]
    at: datetime | None
    section: str
    reason: str = ""
    missed: Missed = MISSED


def line_talk(text: str, companion: str | None = None) -> Talk:
    """The messages in an export. `companion` helps to tell a name with spaces in it where there are few messages."""
    lines = re.split(r"\r\n|\n|\r", text)
    on_pc = not any(_PHONE.match(line) for line in lines)
    heads = (found for line in lines[:5] if (found := _HEAD.match(line)))
    partner = next((found["name"] or found["name2"] for found in heads), None)
    names = _names_on_pc(lines, {partner, companion} - {None}) if on_pc else None
    starts = [_start(line, names) for line in lines]
    known = _known(starts, partner, companion)
    with_weekday = next((_has_weekday(date) for line in lines if (date := DATE.match(line))), False)
    talk, entries, day, section, quoted = Talk(), [], None, "", 0
    for number, (line, start) in enumerate(zip(lines, starts, strict=True), start=1):
        date = DATE.match(line)
        if date and entries and with_weekday and not _has_weekday(date) and _day(date):
            date = None  # somebody names a day
        if start and entries and on_pc and _goes_on(start, entries[-1], day, known):
            start = None
        if number <= quoted or not (date or start):
            if entries:  # else it is the head: whose talk, saved when
                entries[-1].words.append(line)
        elif date:
            day = _day(date)
            # Nothing after a day that does not exist goes on with what was said before it.
            section = "" if day else f"line {number}"
            if day is None:
                talk.leave_out(number, "there is no such day in the calendar", line, None)
        else:
            entries.append(_entry(number, line, start, day, section))
            quoted = number + _quoted(start.words, lines[number:], starts[number:], known)
    for entry in entries:
        words = "\n".join(entry.words).rstrip()
        if entry.reason:
            talk.leave_out(entry.line, entry.reason, words, entry.missed)
        else:
            talk.add(entry.line, entry.speaker, _unquoted(words), entry.at, talk=entry.section)
    talk.left_out.sort(key=lambda left: left[0])
    return talk


def _start(line: str, names: Sequence[str] | None) -> _Start | None:
    """How an entry begins, from a phone (`names` is None) or from a PC; None if none begins here."""
    found = (_PHONE if names is None else _PC).match(line)
    if not found:
        return None
    speaker, words = (found["speaker"], found["text"] or "") if names is None else _on_pc(found["rest"], names)
    return _Start(speaker, words, time_of_day(found))


def _entry(number: int, line: str, start: _Start, day: datetime | None, section: str) -> _Entry:
    speaker, words, time = start
    if time is None:
        return _Entry(number, "", [line], None, "", "there is no such time of day")
    at = day and day + time
    if speaker and words and not _NOT_WORDS.match(words):
        return _Entry(number, speaker, [words], at, section)
    unsent = _UNSENT.match(words or speaker)
    whose = unsent["name"] if unsent else "" if words.startswith(_CALL) else speaker
    missed = Missed(whose, words.startswith(_STICKER))
    return _Entry(number, "", [line], at, "", NO_WORDS, missed)


def _quoted(words: str, lines: Sequence[str], starts: Sequence[_Start | None], known: set[str]) -> int:
    """How many of the lines that follow belong to the quotation that `words` open: none, if they open none, or if
    somebody speaks before it is closed."""
    marks = words.count('"')
    if words.startswith('"') and (marks % 2 or not words.endswith('"')):
        for place, (line, start) in enumerate(zip(lines, starts, strict=True), start=1):
            if start and start.speaker in known:
                break
            marks += line.count('"')
            if line.endswith('"') and marks % 2 == 0:
                return place
    return 0


def _known(starts: Sequence[_Start | None], partner: str | None, companion: str | None) -> set[str]:
    """Who speaks: if the head's `partner` does, the two whose talk it is; else whoever says something twice, or
    `companion` once."""
    counts = Counter(start.speaker for start in starts if start and start.words and start.speaker)
    if partner in counts:
        others = [name for name, _ in counts.most_common() if name != partner]
        return {partner, *([companion] if companion in others else others[:1])}
    return {name for name, count in counts.items() if count > 1 or name == companion}


def _has_weekday(date: re.Match) -> bool:
    return bool(date["weekday"] or date["m2"])


def _day(date: re.Match) -> datetime | None:
    try:
        return datetime(*(int(date[k] or date[k + "2"]) for k in "ymd"))
    except ValueError:
        return None


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


def _goes_on(start: _Start, entry: _Entry, day: datetime | None, known: set[str]) -> bool:
    """Whether a line that begins with a time, but with none of the `known` names, is a line of the message before it
    (12:30 ランチ 予約済み): where two are known, for the talk is theirs, or if its time is an earlier one."""
    rest = f"{start.speaker} {start.words}".strip()
    if not start.speaker or start.speaker in known or _NOT_WORDS.match(start.words) or _NOT_WORDS.match(rest):
        return False
    if any(rest.startswith(f"{name}が") for name in known) or (not start.words and _DONE.search(rest)):
        return False  # a notice
    return len(known) == 2 or bool(day and entry.at and start.time is not None and day + start.time < entry.at)


def _names_on_pc(lines: Sequence[str], told: set[str]) -> list[str]:
    """The speakers' names: those that were `told`, then what nearly all messages begin with that begin alike."""
    said = [found["rest"] for line in lines if (found := _PC.match(line)) and not _NOT_WORDS.match(found["rest"])]
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
