"""Talks in tables: DiscordChatExporter's CSV, and anybody's own.

In: a CSV file. Out: a `Talk`. A row whose quotation marks or commas do not fit is set aside, and reading goes on in the
next line.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.data.talk import Missed, Talk
from helpers.jsonl import decode_file

_COLUMNS = {
    "speaker": ("speaker", "name", "author", "from", "role", "sender", "user_name", "話者", "名前", "送信者"),
    "text": ("text", "content", "message", "body", "本文", "メッセージ", "発言", "内容"),
    "time": ("time", "timestamp", "date", "datetime", "日時", "時刻"),
    "talk": ("conversation_id", "conversation", "dialogue_id", "dialogue", "thread", "talk", "会話"),
}


@dataclass(frozen=True)
class _Row:
    """`cells` are None if the line cannot be read as a row."""

    line: int
    text: str
    cells: list[str] | None


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns.

    Raises:
        ValueError: the file holds no table.
    """
    return _table(path)[0]


def csv_talk(path: Path) -> Talk:
    """A table with a column for the speaker and one for the words, and perhaps for the time and the talk; or with a
    column `user` and a column `assistant`, a row being one exchange.

    Raises:
        ValueError: it has no such columns.
    """
    columns, rows = _table(path)
    place = {
        key: next((i for i, column in enumerate(columns) if column.lower() in names), None)
        for key, names in _COLUMNS.items()
    }
    if {"user", "assistant"} <= set(columns):
        said = [(name, columns.index(name)) for name in ("user", "assistant")]
    elif place["speaker"] is not None and place["text"] is not None:
        said = [(None, place["text"])]
    else:
        raise ValueError(
            f"{path.name} has the columns {', '.join(columns)}: call one of them speaker and one text, or two of them "
            "user and assistant."
        )
    needed = [i for _, i in said] + [place["speaker"]] * (said[0][0] is None)
    talk = Talk()
    for line, cells in _sound(talk, rows, len(columns), max(needed) + 1, place["speaker"]):
        time, name = (_cell(cells, place[key]) for key in ("time", "talk"))
        for speaker, words in said:
            who = cells[place["speaker"]] if speaker is None else speaker
            talk.add(line, who, cells[words], time, talk=name or "")
    return talk


def discord_csv_talk(path: Path) -> Talk:
    """A channel as DiscordChatExporter writes it in CSV.

    Raises:
        ValueError: it has no columns Author and Content.
    """
    columns, rows = _table(path)
    if not {"Author", "Content"} <= set(columns):
        raise ValueError(f"{path.name} has no columns Author and Content, as DiscordChatExporter writes them.")
    author, content = columns.index("Author"), columns.index("Content")
    time = columns.index("Date") if "Date" in columns else None
    talk = Talk()
    for line, cells in _sound(talk, rows, len(columns), max(author, content) + 1, author):
        talk.add(line, cells[author], cells[content], _cell(cells, time))
    return talk


def _cell(cells: Sequence[str], place: int | None) -> str | None:
    return cells[place] if place is not None and place < len(cells) else None


def _sound(
    talk: Talk, rows: Sequence[_Row], most: int, fewest: int, speaker: int | None
) -> Iterator[tuple[int, list[str]]]:
    """The rows that have `fewest` to `most` cells; the others are left out of `talk`."""
    for row in rows:
        missed = Missed((_cell(row.cells or [], speaker) or "").strip())
        if row.cells is None:
            reason = "its quotation marks are not in pairs: words that hold one stand in marks, and it is doubled"
            talk.leave_out(row.line, reason, row.text, missed)
        elif len(row.cells) > most:
            reason = f"it has {len(row.cells)} cells, and the table {most} columns: words with a comma stand in marks"
            talk.leave_out(row.line, reason, row.text, missed)
        elif len(row.cells) < fewest:
            reason = f"it has {len(row.cells)} of the {fewest} cells that it takes to say something"
            talk.leave_out(row.line, reason, row.text, missed)
        else:
            yield row.line, row.cells


def _table(path: Path) -> tuple[list[str], list[_Row]]:
    rows = list(_rows(decode_file(path)))
    if not rows or rows[0].cells is None:
        raise ValueError(f"{path.name} does not begin with the names of its columns.")
    if len(rows) == 1:
        raise ValueError(f"{path.name} holds no row below its column names.")
    return [" ".join(name.split()) for name in rows[0].cells], rows[1:]


def _rows(text: str) -> Iterator[_Row]:
    """The rows that are not blank. A mark that is not closed would take the rest of the file for one cell: its line is
    set aside, and the next one begins a row."""
    lines = list(io.StringIO(text, newline=""))
    at = 0
    while at < len(lines):
        reader = csv.reader((lines[i] for i in range(at, len(lines))), strict=True)
        try:
            cells, taken = next(reader), reader.line_num
        except csv.Error:
            cells, taken = None, 1
        words = "".join(lines[at : at + taken]).rstrip("\r\n")
        if words.strip():
            yield _Row(at + 1, words, cells)
        at += taken
