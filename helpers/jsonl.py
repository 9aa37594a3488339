"""JSON Lines as people and programs write them, read so that no line can stop the reading or slip through it.

In: files with one JSON value a line, or one JSON document that lists its items. Out: what a schema makes of each value,
or a `BadLine` that says where it stands and what is wrong with it. Lines are read one by one: memory does not grow with
the file.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import ValidationError

from helpers.files import write_atomically

MAX_LINE_BYTES = 1_000_000  # a dialogue has a few thousand
MAX_DOCUMENT_BYTES = 64_000_000  # a JSON document is read whole
_KEPT_CHARS = 10_000  # of a bad line's text; the line itself stays where it is
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Record(Protocol):
    id: str


_T = TypeVar("_T", bound=_Record)


@dataclass(frozen=True)
class BadLine:
    """A line that was set aside: `line` counts from 1."""

    file: str
    line: int
    reason: str
    text: str


@dataclass(frozen=True)
class Piece:
    """Part of a `.jsonl` file that begins and ends with a line: its bytes from `start` to before `end`, before which
    there are `lines` lines."""

    file: Path
    start: int
    end: int
    lines: int


def find_files(path: Path, what: str, suffixes: Sequence[str] = (".jsonl",)) -> list[Path]:
    """`path` itself, or every file below it with one of `suffixes`, in order.

    Raises:
        FileNotFoundError: there is none; `what` says of what.
    """
    files = sorted(f for f in path.rglob("*") if f.suffix in suffixes) if path.is_dir() else [path]
    if not files or not all(f.is_file() for f in files):
        raise FileNotFoundError(f"There are no {what} at {path}: give a {' or '.join(suffixes)} file, or a folder.")
    return files


def cut(file: Path, size: int) -> Iterator[Piece]:
    """The pieces of a `.jsonl` file, each of `size` bytes and what is missing to the end of a line."""
    with file.open("rb") as stream:
        start = lines = 0
        while block := stream.read(size):
            counted, last = block.count(b"\n"), block
            while not last.endswith(b"\n") and (last := stream.readline(MAX_LINE_BYTES)):
                counted += last.endswith(b"\n")
            yield Piece(file, start, stream.tell(), lines)
            start, lines = stream.tell(), lines + counted


def read_records(files: Iterable[Path | Piece], parse: Callable[[object, str], _T]) -> Iterator[_T | BadLine]:
    """For each value in `files`, in order, what `parse(value, name)` makes of it, or why it cannot be used.

    `name` is made of file and line, for a value that brings no id of its own; an id may occur once in all files. A name
    that another value has, or brings later, is made anew: `talks-1` becomes `talks.2-1`. What `parse` refuses it
    refuses with a ValueError, as pydantic does.
    """
    files = list(files)
    seen: dict[str, str] = {}
    brought: set[str] | None = None  # looked for when the first name is given
    for part in files:
        file = part.file if isinstance(part, Piece) else part
        for number, text, value in values_in(part):
            again = count(2)
            try:
                if isinstance(value, ValueError):
                    raise value
                record = parse(value, name := f"{file.stem}-{number}")
                if brought is None and name in record.id:
                    brought = _brought(files)
                while record.id in seen or (brought and name in brought):
                    other = parse(value, name := f"{file.stem}.{next(again)}-{number}")
                    if other.id == record.id:  # whatever its name: it brought its id
                        break
                    record = other
                if record.id in seen:
                    raise ValueError(f"the id {record.id!r} was used before, in {seen[record.id]}")
            except ValueError as error:
                yield BadLine(file.name, number, reason_of(error), text)
            else:
                seen[record.id] = f"{file.name}:{number}"
                yield record


def _brought(files: Iterable[Path | Piece]) -> set[str]:
    """The ids in `files` that could be taken for a name that is made."""
    values = (value for part in files for *_, value in values_in(part) if isinstance(value, dict))
    ids = (own for value in values for key, own in value.items() if key.endswith("id") and isinstance(own, str))
    return {own for own in ids if own.rpartition("-")[2].isdigit()}


def sort_out(records: Iterable[_T | BadLine]) -> tuple[list[_T], list[BadLine]]:
    """What `read_records` gave, the good records and the bad lines apart."""
    good, bad = [], []
    for record in records:
        (bad if isinstance(record, BadLine) else good).append(record)
    return good, bad


def values_in(part: Path | Piece) -> Iterator[tuple[int, str, object]]:
    """(line, text, JSON value) for each line of a file, or of a piece of one, that is not blank; the value of a line
    that holds none is the ValueError that says why. For a `.json` document: (place, text, value) for each of its items.
    """
    piece = part if isinstance(part, Piece) else Piece(part, 0, part.stat().st_size, 0)
    file = piece.file
    if file.suffix != ".json":
        for number, line, size in _lines(piece):
            value = _value(line, size, MAX_LINE_BYTES, "the line")
            if _SURROGATE.search(line) and not isinstance(value, ValueError):
                value = whole(value)
            yield number, line[:_KEPT_CHARS].decode("utf-8", "replace"), value
        return
    try:
        items = _items(load_document(file))
    except ValueError as error:
        yield 1, "", error
        return
    for place, item in enumerate(items, start=1):
        try:
            text = json.dumps(item, ensure_ascii=False)[:_KEPT_CHARS]
        except RecursionError:
            yield place, "", ValueError("the brackets of the item are nested too deeply")
        else:
            yield place, text.encode("utf-8", "replace").decode("utf-8"), whole(item)


def load_document(file: Path) -> object:
    """The value of a JSON document.

    Raises:
        ValueError: it holds none; the message says why.
    """
    size = file.stat().st_size
    raw = file.read_bytes() if size <= MAX_DOCUMENT_BYTES else b""
    value = _value(raw.removeprefix(_BOM), size, MAX_DOCUMENT_BYTES, "the document")
    if isinstance(value, ValueError):
        raise value
    return value


def decode(raw: bytes, what: str) -> str:
    """The text of UTF-8 bytes.

    Raises:
        ValueError: they are something else; the message says what, if it can be told, and what to do.
    """
    try:
        return raw.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} is {_encoding(raw)}; save the file as UTF-8") from error


def decode_file(file: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        ValueError: it is something else.
    """
    try:
        return decode(file.read_bytes(), file.name)
    except ValueError as error:
        raise ValueError(f"{error}.") from error


def _items(document: object) -> list:
    """What a document lists: it is a list, or has one under `conversations`, or is itself one conversation."""
    if isinstance(document, dict) and "messages" in document:
        return [document]
    items = document.get("conversations") if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise ValueError("the document is neither a list nor an object with a list under `conversations`")
    one_talk = isinstance(document, dict) and any(isinstance(item, dict) and "from" in item for item in items)
    return [document] if one_talk else items


def reason_of(error: Exception) -> str:
    """What is wrong, in one sentence."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def write_quarantine(path: Path, bad: Sequence[BadLine]) -> None:
    """Write the lines that were set aside, each with file, line number, reason and its text."""
    write_atomically(path, "".join(json.dumps(asdict(b), ensure_ascii=False) + "\n" for b in bad))


def _lines(piece: Piece) -> Iterator[tuple[int, bytes, int]]:
    """(number, bytes, size) of each line that is not blank. Of a line that is too long, the bytes are its beginning."""
    with piece.file.open("rb") as stream:
        stream.seek(piece.start)
        number, at = piece.lines, piece.start
        while at < piece.end and (line := stream.readline(MAX_LINE_BYTES + 1)):
            number, size = number + 1, len(line)
            end = line
            while not end.endswith(b"\n") and (end := stream.readline(MAX_LINE_BYTES)):
                size += len(end)
            at += size
            if line.strip():
                yield number, line.rstrip(b"\r\n"), size


def _value(raw: bytes, size: int, most: int, what: str) -> object:
    """The JSON value of `raw`, or the ValueError that says why there is none."""
    if size > most:
        return ValueError(f"{what} is {size:,} bytes long, and {most:,} are the most that are read as one")
    try:
        return json.loads(decode(raw, what))
    except json.JSONDecodeError as error:
        return ValueError(f"{what} is not JSON ({error.msg} at character {error.pos + 1})")
    except RecursionError:
        return ValueError(f"the brackets of {what} are nested too deeply")
    except ValueError as error:
        # Python refuses whole numbers of more than 4300 digits.
        return ValueError(f"{what} holds a number of thousands of digits") if "digits" in str(error) else error


def whole(value: object) -> object:
    """`value`, or the ValueError that says that a text in it cannot be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeEncodeError:
        return ValueError("it holds half a character (a lone surrogate)")


def _encoding(raw: bytes) -> str:
    """A guess at what bytes are that are not UTF-8, as the end of a sentence."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16, not UTF-8"
    try:
        raw.decode("cp932")
        return "Shift_JIS, not UTF-8"
    except UnicodeDecodeError:
        return "not UTF-8"
