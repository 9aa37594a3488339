"""Chats from elsewhere, in the formats that people have them in.

In: a file in one of `FORMATS`. Out: a `Reading`: conversations, and what was left out, line by line, with its reason.
Formats with roles (OpenAI messages, ShareGPT, Alpaca) say who the companion is. A talk between people (LINE, Discord,
Telegram, CSV) does not: `companion` names the one who takes her part, and a pause of `gap_hours` ends a conversation,
as does a turn that was left out (a picture, a call, a broken row): what answers it answers nothing else.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import groupby, islice, pairwise
from pathlib import Path

from helpers.conversations import Conversation, Metadata, Reading, conversation_from, read_conversations
from helpers.data.csv_export import columns_of, csv_talk, discord_csv_talk
from helpers.data.json_export import discord_talk, telegram_talk
from helpers.data.line_export import DATE, line_talk
from helpers.data.role_formats import alpaca, openai, sharegpt
from helpers.data.talk import Said, Talk
from helpers.jsonl import BadLine, decode_file, load_document, read_records, reason_of, sort_out, values_in

GAP_HOURS = 6.0
_LOOKED_AT = 1000  # items of a file, of which its format is told

_WITH_ROLES = {"openai": openai, "sharegpt": sharegpt, "alpaca": alpaca}
_TALKS = {"discord": discord_talk, "discord_csv": discord_csv_talk, "telegram": telegram_talk, "csv": csv_talk}
FORMATS = ("native", *_WITH_ROLES, "line", *_TALKS)


class UnknownFormat(ValueError):
    """A file that looks like none of the formats, or a format that does not exist."""


class WhoIsShe(ValueError):
    """A talk between people, and it is not said which of them takes the companion's part."""


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
    talk = line_talk(decode_file(path), companion) if name == "line" else _TALKS[name](path)
    return _conversations(path, talk, name, companion, timedelta(hours=gap_hours))


def detect_format(path: Path) -> str:
    """The format of a file, by its name and by what most of its items look like.

    Raises:
        UnknownFormat: it looks like none.
        ValueError: it cannot be read at all.
    """
    name = None
    if path.suffix == ".csv":
        name = "discord_csv" if {"AuthorID", "Content"} <= set(columns_of(path)) else "csv"
    elif path.suffix == ".txt":
        name = "line" if any(DATE.match(line) for line in decode_file(path).splitlines()[:50]) else None
    elif path.suffix == ".json":
        try:
            name = _format_of_document(load_document(path)) or _format_of_items(value for *_, value in values_in(path))
        except ValueError as error:
            raise ValueError(f"{path.name} cannot be read: {error}.") from error
    elif path.suffix == ".jsonl":
        name = _format_of_items(value for *_, value in islice(values_in(path), _LOOKED_AT))
    if name is None:
        raise UnknownFormat(f"{path.name} looks like none of {', '.join(FORMATS)}: give its format by name.")
    return name


def _format_of_document(document: object) -> str | None:
    match document:
        case {"messages": _, "channel": _} | {"messages": _, "guild": _}:
            return "discord"
        case {"chats": {"list": _}}:
            return "telegram"
        case {"messages": list(messages)} if any(isinstance(m, dict) and "date_unixtime" in m for m in messages):
            return "telegram"
    return None


def _format_of_items(values: Iterable[object]) -> str | None:
    """What most items are. One that could be OpenAI's as well as ours is what the others with `messages` are."""
    counts = Counter(name for value in values if (name := _format_of(value)))
    either = {name: counts.pop(name, 0) for name in ("native", "openai", "either")}
    if any(either.values()):
        counts["openai" if either["openai"] and not either["native"] else "native"] = sum(either.values())
    return max(counts, key=counts.__getitem__, default=None)


def _format_of(item: object) -> str | None:
    match item:
        case {"messages": messages}:
            metadata = item.get("metadata")
            if isinstance(metadata, dict) and metadata and set(metadata) <= set(Metadata.model_fields):
                return "native"
            ours = set(item) <= set(Conversation.model_fields)
            return "openai" if not ours or _openais_own(messages) else "either"
        case {"conversations": list(turns)} if any(isinstance(turn, dict) and "from" in turn for turn in turns):
            return "sharegpt"
        case {"instruction": _, "output": _}:
            return "alpaca"
    return None


def _openais_own(turns: object) -> bool:
    """Whether a turn has what ours never have: parts, a developer or a tool, a weight, a name."""
    if not isinstance(turns, list):
        return False
    return any(
        isinstance(turn.get("content"), list)
        or turn.get("role") in ("developer", "tool", "function")
        or bool(set(turn) - {"role", "content"})
        for turn in turns
        if isinstance(turn, dict)
    )


def _with_roles(convert: Callable[[Mapping], dict], source: str, value: object, name: str) -> Conversation:
    if not isinstance(value, dict):
        raise ValueError("it is JSON, but not an object")
    own = value.get("id")
    own = str(own) if isinstance(own, str | int) and own else name
    return conversation_from({**convert(value), "id": own, "metadata": {"source": source}}, name)


def _conversations(path: Path, talk: Talk, source: str, companion: str | None, gap: timedelta) -> Reading:
    speakers = sorted({said.speaker for said in talk.said})
    companion = "assistant" if companion is None and speakers == ["assistant", "user"] else companion
    reading = Reading(quarantine=[BadLine(path.name, *left) for left in talk.left_out], speakers=speakers)
    if not speakers and reading.quarantine:
        return reading
    if not speakers:
        raise ValueError(f"{path.name} holds no message that could be read.")
    if companion not in speakers:
        raise WhoIsShe(
            f"In {path.name} talk {', '.join(speakers)}: name the one who takes the companion's part "
            f"(for example companion={speakers[-1]!r})."
        )

    def leave_out(said: Sequence[Said], reason: str) -> None:
        text = "\n".join(f"{one.speaker}\t{one.text}" for one in said)
        reading.quarantine.append(BadLine(path.name, said[0].line, reason, text))

    for number, (part, cut_before, cut_after) in enumerate(_parts(_sessions(talk.said, gap), companion), start=1):
        turns = [(hers, list(said)) for hers, said in groupby(part, key=lambda one: one.speaker == companion)]
        if len({one.speaker for one in part} - {companion}) > 1:
            leave_out(part, "more than two people talk here, and only a talk of two can be learned from")
            continue
        if turns[0][0]:
            first = "she speaks first here, and a conversation begins with the user"
            leave_out(turns.pop(0)[1], "it may answer what was left out before it" if cut_before else first)
        if turns and not turns[-1][0]:
            leave_out(turns.pop()[1], "what answers this was left out" if cut_after else "nobody answered this")
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
            leave_out(part, reason_of(error))
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


def _parts(sessions: Iterable[list[Said]], companion: str | None) -> Iterator[tuple[list[Said], bool, bool]]:
    """The sessions, cut where what was left out breaks the talk off; and whether a part was cut off from what stands
    before it, and from what stands after it."""
    for session in sessions:
        pairs = enumerate(pairwise(session), start=1)
        cuts = [place for place, (last, one) in pairs if _broken_off(last, one, companion)]
        for start, end in pairwise([0, *cuts, len(session)]):
            yield session[start:end], start > 0, end < len(session)


def _broken_off(last: Said, one: Said, companion: str | None) -> bool:
    """Whether, of what was left out between two messages, some is a turn of its own, or may be what she answers.

    A sticker of hers, or one that follows the words of whoever sent it, adds to them and asks nothing.
    """
    speakers, before = [last.speaker], last.speaker
    for missed in one.missed:
        if not (missed.sticker and missed.speaker in (companion, before)):
            speakers.append(missed.speaker)
        before = missed.speaker
    turns = sum(1 for _ in groupby([*speakers, one.speaker]))
    return turns > 1 + (last.speaker != one.speaker) or (
        one.speaker == companion and any(speaker != companion for speaker in speakers[1:])
    )
