"""The one schema for conversations, and how they are read from and written to disk.

In: JSON Lines with one conversation a line, or the guide's JSON document with `conversations[]`.
Out: `Conversation` objects, and a list of the lines that could not be used, each with its reason.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from helpers.files import write_atomically
from helpers.persona import Level, PersonaCard, system_prompt


class Message(BaseModel):
    """One turn. `content` is the words alone, in UTF-8, never empty."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: str

    @field_validator("content")
    @classmethod
    def _not_empty(cls, content: str) -> str:
        if not content.strip():
            raise ValueError("the turn is empty")
        return content.strip()


class Metadata(BaseModel):
    """What conditions the companion in this conversation, and where it came from."""

    model_config = ConfigDict(extra="forbid")

    affection_level: Level = "friend"
    emotions: list[str] = []
    topics: list[str] = []
    memories: list[str] = []
    source: str = "hand"


class Conversation(BaseModel):
    """Turns that alternate user, assistant, …, from a user's to a companion's.

    `system` is None when the system prompt comes from the persona card (the normal case); a text given by an imported
    file is used as it stands.
    """

    model_config = ConfigDict(extra="forbid")

    id: str = ""
    system: str | None = None
    messages: list[Message] = Field(min_length=2)
    metadata: Metadata = Metadata()

    @model_validator(mode="after")
    def _alternates(self) -> "Conversation":
        for i, message in enumerate(self.messages):
            expected = ("user", "assistant")[i % 2]
            if message.role != expected:
                raise ValueError(f"turn {i + 1} is {message.role}'s where {expected}'s was due")
        if len(self.messages) % 2:
            raise ValueError("the last turn is the user's: the companion's reply is missing")
        return self

    @property
    def replies(self) -> list[str]:
        return [m.content for m in self.messages if m.role == "assistant"]

    def chat(self, card: PersonaCard) -> list[dict[str, str]]:
        """The conversation in the field's `[{"role", "content"}]` form, system prompt first."""
        meta = self.metadata
        prompt = self.system or system_prompt(
            card, meta.affection_level, meta.emotions[0] if meta.emotions else None, meta.memories
        )
        return [{"role": "system", "content": prompt}] + [m.model_dump() for m in self.messages]


@dataclass(frozen=True)
class BadLine:
    """A line that was set aside: `line` counts from 1."""

    file: str
    line: int
    reason: str
    text: str


@dataclass
class Reading:
    """What a file or folder held."""

    conversations: list[Conversation] = field(default_factory=list)
    quarantine: list[BadLine] = field(default_factory=list)


def read_conversations(path: str | Path) -> Reading:
    """Read one file (`.jsonl`, or the guide's `.json`) or every such file of a folder.

    Bad lines do not stop the reading; they are returned with their reasons.

    Raises:
        FileNotFoundError: `path` does not exist or holds no such file.
    """
    path = Path(path)
    files = sorted(p for p in path.rglob("*") if p.suffix in (".jsonl", ".json")) if path.is_dir() else [path]
    if not files or not all(f.exists() for f in files):
        raise FileNotFoundError(
            f"There are no conversations at {path}: give a .jsonl or .json file, or a folder of them."
        )
    reading = Reading()
    seen: dict[str, str] = {}
    for file in files:
        for number, raw in _items(file):
            try:
                conversation = _parse(raw, f"{file.stem}-{number}")
                if conversation.id in seen:
                    raise ValueError(f"the id {conversation.id!r} was used before, in {seen[conversation.id]}")
                seen[conversation.id] = f"{file.name}:{number}"
                reading.conversations.append(conversation)
            except (ValueError, ValidationError) as error:
                text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else json.dumps(raw, ensure_ascii=False)
                reading.quarantine.append(BadLine(file.name, number, _reason(error), text))
    return reading


def _items(file: Path) -> Iterable[tuple[int, bytes | dict]]:
    if file.suffix == ".json":
        try:
            document = json.loads(file.read_bytes())
            items = document["conversations"] if isinstance(document, dict) else document
        except (ValueError, KeyError):
            yield 1, file.read_bytes()
            return
        yield from enumerate(items, start=1)
        return
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if line.strip():
            yield number, line


def _parse(raw: bytes | dict, default_id: str) -> Conversation:
    if isinstance(raw, bytes):
        try:
            raw = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError("the line is not UTF-8; save the file as UTF-8") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"the line is not JSON ({error.msg} at character {error.pos + 1})") from error
    if not isinstance(raw, dict):
        raise ValueError("the line is JSON, but not an object with `messages`")
    messages = raw.get("messages")
    if (
        isinstance(messages, list)
        and messages
        and isinstance(messages[0], dict)
        and messages[0].get("role") == "system"
    ):
        raw = {**raw, "system": messages[0].get("content"), "messages": messages[1:]}
    return Conversation.model_validate({"id": default_id, **raw})


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        return f"{where}: {what}" if where else what
    return str(error)


def write_conversations(path: Path, conversations: Sequence[Conversation]) -> None:
    """Write JSON Lines, whole or not at all."""
    lines = (c.model_dump_json(exclude_none=True) for c in conversations)
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def write_quarantine(path: Path, bad: Sequence[BadLine]) -> None:
    """Write the lines that were set aside, each with file, line number, reason and its text."""
    write_atomically(path, "".join(json.dumps(asdict(b), ensure_ascii=False) + "\n" for b in bad))
