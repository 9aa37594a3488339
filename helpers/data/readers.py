"""Chats from elsewhere, in the formats that people have them in.

In: a file in one of `FORMATS`. Out: a `Reading`: conversations, and what was left out, line by line, with its reason.
Formats with roles (OpenAI messages, ShareGPT, Alpaca) say who the companion is. A talk between people (LINE, Discord,
Telegram, CSV) does not: `companion` names the one who takes her part, and a pause of `gap_hours` ends a conversation.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path

from helpers.conversations import Conversation, Reading, conversation_from, read_conversations
from helpers.jsonl import BadLine, decode, load_document, read_records, reason_of, sort_out, values_in

GAP_HOURS = 6.0
_NO_WORDS = "it is a sticker, a picture, a call or a notice, and only words are read"


class UnknownFormat(ValueError):
    """A file that looks like none of the formats, or a format that does not exist."""


class WhoIsShe(ValueError):
    """A talk between people, and it is not said which of them takes the companion's part."""


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


def read_chats(
    path: str | Path, format: str = "auto", companion: str | None = None, gap_hours: float = GAP_HOURS
) -> Reading:
    """Read one file of chats.

    Args:
        format: a name in `FORMATS`, or "auto" to tell it by the file.
        companion: in a talk between people, the speaker who takes the companion's part.
        gap_hours: a longer pause between two messages begins a new conversation.

    Raises:
        FileNotFoundError: there is no such file.
        UnknownFormat: the format does not exist, or cannot be told.
        WhoIsShe: `companion` is missing, or nobody in the talk has that name.
        ValueError: the file as a whole cannot be read; the message says why.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: give a chat export.")
    name = detect_format(path) if format == "auto" else format
    if name not in FORMATS:
        raise UnknownFormat(f"There is no format {name!r}: use auto, {', '.join(FORMATS)}.")
    if name == "native":
        return read_conversations(path)
    if name in _WITH_ROLES:
        return Reading(*sort_out(read_records([path], partial(_with_roles, _WITH_ROLES[name], name))))
    return _conversations(path, _TALKS[name](path), name, companion, timedelta(hours=gap_hours))


def detect_format(path: Path) -> str:
    """The format of a file, by its name and its first item.

    Raises:
        UnknownFormat: it looks like none.
    """
    name = None
    if path.suffix == ".csv":
        name = "discord_csv" if {"AuthorID", "Content"} <= set(_csv_rows(path)[0]) else "csv"
    elif path.suffix == ".txt":
        name = "line" if any(_LINE_DATE.match(line) for line in _text(path).splitlines()[:50]) else None
    elif path.suffix in (".json", ".jsonl"):
        value = load_document(path) if path.suffix == ".json" else next((v for *_, v in values_in(path)), None)
        name = _format_of(value)
    if name is None:
        raise UnknownFormat(f"{path.name} looks like none of {', '.join(FORMATS)}: give its format by name.")
    return name


def _format_of(value: object) -> str | None:
    match value:
        case {"messages": _, "channel": _} | {"messages": _, "guild": _}:
            return "discord"
        case {"chats": {"list": _}} | {"messages": [{"date_unixtime": _}, *_]}:
            return "telegram"
        case {"conversations": [{"from": _}, *_]}:
            return "sharegpt"
        case {"instruction": _, "output": _}:
            return "alpaca"
        case {"conversations": [first, *_]} | [first, *_]:
            return _format_of(first)
        case {"messages": _}:
            ours = set(value) <= set(Conversation.model_fields) and _all_text(value["messages"])
            return "native" if ours else "openai"
    return None


def _all_text(turns: object) -> bool:
    return isinstance(turns, list) and all(isinstance(t, dict) and isinstance(t.get("content"), str) for t in turns)


# -- With roles: one item is one conversation --------------------------------------------------------------------------


def _with_roles(convert: Callable[[Mapping], dict], source: str, value: object, name: str) -> Conversation:
    if not isinstance(value, dict):
        raise ValueError("it is JSON, but not an object")
    return conversation_from(
        {**convert(value), "id": str(value.get("id") or name), "metadata": {"source": source}}, name
    )


def _openai(item: Mapping) -> dict:
    """OpenAI's `messages`; a content may be a list of parts, all of them text."""
    return {"messages": [{"role": _role(m.get("role")), "content": _content(m)} for m in _turns(item, "messages")]}


def _content(message: Mapping) -> object:
    content = message.get("content")
    if message.get("tool_calls"):
        raise ValueError("a turn calls a tool, and only talk can be learned")
    if not isinstance(content, list):
        return content
    if other := sorted({str(part.get("type")) for part in content} - {"text"}):
        raise ValueError(f"a turn holds {', '.join(other)}, and only text can be learned")
    return "".join(part["text"] for part in content)


def _sharegpt(item: Mapping) -> dict:
    """ShareGPT's `conversations` of `from` and `value`, with an optional `system`."""
    turns = [{"role": _role(t.get("from")), "content": t.get("value")} for t in _turns(item, "conversations")]
    return {"messages": turns} | _system(item)


def _alpaca(item: Mapping) -> dict:
    """Alpaca's `instruction`, `input` and `output`, with an optional `history` of pairs and `system`."""
    asked = [item.get("instruction"), item.get("input")]
    if not all(isinstance(part, str) for part in asked if part):
        raise ValueError("instruction and input must be text")
    pairs = [*(item.get("history") or []), ("\n".join(filter(None, asked)), item.get("output"))]
    turns = [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return {"messages": turns} | _system(item)


def _role(name: object) -> object:
    return {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "developer": "system"}.get(
        str(name), name
    )


def _system(item: Mapping) -> dict:
    return {"system": item["system"]} if item.get("system") else {}


def _turns(item: Mapping, key: str) -> list[Mapping]:
    turns = item.get(key)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{key} is not a list of objects")
    return turns


# -- Talks between people ----------------------------------------------------------------------------------------------

_LINE_DATE = re.compile(
    r"(?:(?P<y>\d{4})[/.年](?P<m>\d{1,2})[/.月](?P<d>\d{1,2})日?|\w{3}, (?P<m2>\d{1,2})/(?P<d2>\d{1,2})/(?P<y2>\d{4}))"
    r"\s*(?:\(?[月火水木金土日](?:曜日?)?\)?)?\s*$"
)
_LINE_TIME = r"(?P<half>午前|午後)?(?P<hour>\d{1,2}):(?P<minute>\d{2}) ?(?P<end>[AP]M)?"
_LINE_PHONE = re.compile(rf"{_LINE_TIME}\t(?P<speaker>[^\t]*)(?:\t(?P<text>.*))?$")
_LINE_PC = re.compile(rf"{_LINE_TIME} (?P<speaker>\S+)(?: (?P<text>.*))?$")
_NOT_WORDS = re.compile(
    r"^(?:\[(?:スタンプ|写真|動画|画像|アルバム|ファイル|ボイスメッセージ|位置情報|連絡先|ノート|"
    r"Sticker|Photo|Video|File|Voice message|Location|Contact)\].*"
    r"|☎.*|.*メッセージの送信を取り消しました。?|.*unsent a message\.?)$"
)


def _line(path: Path) -> Talk:
    """LINE's exported talk: lines with a date, and lines with time, name and words between tabs (from a phone) or
    spaces (from a PC). Any other line goes on with the message before it."""
    lines = _text(path).splitlines()
    pattern = _LINE_PHONE if any(_LINE_PHONE.match(line) for line in lines) else _LINE_PC
    talk, day = Talk(), None
    for number, line in enumerate(lines, start=1):
        if date := _LINE_DATE.match(line):
            day = datetime(*(int(date[k] or date[k + "2"]) for k in "ymd"))
        elif day is None:
            continue  # the head: whose talk, saved when
        elif message := pattern.match(line):
            text = message["text"] or ""
            if not message["speaker"] or not text or _NOT_WORDS.match(text):
                talk.left_out.append((number, _NO_WORDS, line))
            else:
                talk.said.append(Said(number, message["speaker"], text, day + _time_of_day(message)))
        elif talk.said:
            last = talk.said[-1]
            talk.said[-1] = replace(last, text=f"{last.text}\n{line}".rstrip())
    talk.said = [replace(one, text=_unquoted(one.text)) for one in talk.said]
    return talk


def _time_of_day(message: re.Match) -> timedelta:
    hour = int(message["hour"])
    if message["half"] or message["end"]:
        hour = hour % 12 + 12 * (message["half"] == "午後" or message["end"] == "PM")
    return timedelta(hours=hour, minutes=int(message["minute"]))


def _unquoted(text: str) -> str:
    """A message of several lines stands in quotation marks, its own marks doubled."""
    quoted = "\n" in text and text.startswith('"') and text.endswith('"')
    return text[1:-1].replace('""', '"') if quoted else text


def _discord(path: Path) -> Talk:
    """A channel as DiscordChatExporter writes it in JSON."""
    talk = Talk()
    for number, m in enumerate(_turns(_object(path), "messages"), start=1):
        author = m.get("author") or {}
        name = author.get("nickname") or author.get("name")
        _add(talk, number, name, m.get("content"), m.get("timestamp"), m.get("type") in ("Default", "Reply"))
    return talk


def _discord_csv(path: Path) -> Talk:
    """A channel as DiscordChatExporter writes it in CSV."""
    talk = Talk()
    for number, row in enumerate(_csv_rows(path), start=2):
        _add(talk, number, row["Author"], row["Content"], row.get("Date"))
    return talk


def _telegram(path: Path) -> Talk:
    """A chat as Telegram Desktop exports it in JSON; of an export of all chats, the only one."""
    document = _object(path)
    if "chats" in document:
        chats = document["chats"]["list"]
        if len(chats) != 1:
            raise ValueError(f"{path.name} holds {len(chats)} chats: export the one that is to be learned from.")
        document = chats[0]
    talk = Talk()
    for number, m in enumerate(_turns(document, "messages"), start=1):
        text = m.get("text")
        if isinstance(text, list):
            text = "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in text)
        _add(talk, number, m.get("from"), text, m.get("date"), m.get("type") == "message" and not m.get("media_type"))
    return talk


_COLUMNS = {
    "speaker": ("speaker", "name", "author", "from", "role", "sender", "user_name", "話者", "名前", "送信者"),
    "text": ("text", "content", "message", "body", "本文", "メッセージ", "発言", "内容"),
    "time": ("time", "timestamp", "date", "datetime", "日時", "時刻"),
    "talk": ("conversation_id", "conversation", "dialogue_id", "dialogue", "thread", "talk", "会話"),
}


def _csv(path: Path) -> Talk:
    """A table with a column for the speaker and one for the words, and perhaps for the time and the talk; or with a
    column `user` and a column `assistant`, a row being one exchange."""
    rows = _csv_rows(path)
    column = {key: next((n for n in rows[0] if n.strip().lower() in names), "") for key, names in _COLUMNS.items()}
    pairs = {"user", "assistant"} <= set(rows[0])
    if not pairs and not (column["speaker"] and column["text"]):
        raise ValueError(
            f"{path.name} has the columns {', '.join(rows[0])}: call one of them speaker and one text, or two of them "
            "user and assistant."
        )
    talk = Talk()
    for number, row in enumerate(rows, start=2):
        said = (
            [(r, row[r]) for r in ("user", "assistant")] if pairs else [(row[column["speaker"]], row[column["text"]])]
        )
        for speaker, text in said:
            _add(talk, number, speaker, text, row.get(column["time"]), name=row.get(column["talk"]) or "")
    return talk


_WITH_ROLES = {"openai": _openai, "sharegpt": _sharegpt, "alpaca": _alpaca}
_TALKS = {"line": _line, "discord": _discord, "discord_csv": _discord_csv, "telegram": _telegram, "csv": _csv}
FORMATS = ("native", *_WITH_ROLES, *_TALKS)


def _add(
    talk: Talk, number: int, speaker: object, text: object, time: object, words: bool = True, name: str = ""
) -> None:
    """Add a message, or what is wrong with it, to `talk`."""
    if not words or not isinstance(text, str) or not text.strip():
        talk.left_out.append((number, _NO_WORDS, str(text)))
    elif not isinstance(speaker, str) or not speaker.strip():
        talk.left_out.append((number, "it does not say who speaks", text))
    else:
        try:
            at = datetime.fromisoformat(str(time).replace("/", "-")) if time else None
        except ValueError:
            talk.left_out.append((number, f"its time {time!r} is none such as 2026-11-24 21:03", text))
            return
        talk.said.append(Said(number, speaker.strip(), text.strip(), at and at.replace(tzinfo=None), name))


def _conversations(path: Path, talk: Talk, source: str, companion: str | None, gap: timedelta) -> Reading:
    speakers = sorted({said.speaker for said in talk.said})
    companion = "assistant" if companion is None and speakers == ["assistant", "user"] else companion
    if not speakers:
        raise WhoIsShe(f"{path.name} holds no message that could be read.")
    if companion not in speakers:
        raise WhoIsShe(
            f"In {path.name} talk {', '.join(speakers)}: name the one who takes the companion's part "
            f"(for example companion={speakers[-1]!r})."
        )
    reading = Reading(quarantine=[BadLine(path.name, *left) for left in talk.left_out], speakers=speakers)

    def leave_out(said: Sequence[Said], reason: str) -> None:
        text = "\n".join(f"{one.speaker}\t{one.text}" for one in said)
        reading.quarantine.append(BadLine(path.name, said[0].line, reason, text))

    for number, session in enumerate(_sessions(talk.said, gap), start=1):
        turns = [(hers, list(said)) for hers, said in groupby(session, key=lambda one: one.speaker == companion)]
        if len({one.speaker for one in session} - {companion}) > 1:
            leave_out(session, "more than two people talk here, and only a talk of two can be learned from")
            continue
        if turns[0][0]:
            leave_out(turns.pop(0)[1], "she speaks first here, and a conversation begins with the user")
        if turns and not turns[-1][0]:
            leave_out(turns.pop()[1], "nobody answered this")
        if not turns:
            continue
        messages = [
            {"role": "assistant" if hers else "user", "content": "\n".join(one.text for one in said)}
            for hers, said in turns
        ]
        value = {"messages": messages, "metadata": {"source": source}}
        try:
            reading.conversations.append(conversation_from(value, f"{path.stem}-{number}"))
        except ValueError as error:
            leave_out(session, reason_of(error))
    return reading


def _sessions(said: Sequence[Said], gap: timedelta) -> Iterator[list[Said]]:
    """The messages of each talk, cut where nobody spoke for longer than `gap`."""
    session: list[Said] = []
    for one in said:
        last = session[-1] if session else one
        if one.talk != last.talk or (one.at and last.at and one.at - last.at > gap):
            yield session
            session = []
        session.append(one)
    if session:
        yield session


def _text(path: Path) -> str:
    try:
        return decode(path.read_bytes(), path.name)
    except ValueError as error:
        raise ValueError(f"{error}.") from error


def _object(path: Path) -> Mapping:
    document = load_document(path)
    if not isinstance(document, dict):
        raise ValueError(f"{path.name} is JSON, but not an object with messages.")
    return document


def _csv_rows(path: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(_text(path), newline="")))
    if not rows:
        raise ValueError(f"{path.name} holds no row below its column names.")
    return rows
