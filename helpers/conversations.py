"""The one schema for conversations, and how they are read from and written to disk.

In: JSON Lines with one conversation a line, or the guide's JSON document with `conversations[]`.
Out: `Conversation` objects, and a list of the lines that could not be used, each with its reason.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from helpers.control_tokens import defuse
from helpers.files import write_atomically
from helpers.jsonl import BadLine, find_files, read_records, sort_out
from helpers.persona import WORDINGS, Level, PersonaCard, system_prompt


def _clean(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for character in text:
        if character not in "\n\t" and unicodedata.category(character) == "Cc":
            raise ValueError(f"it holds the control character U+{ord(character):04X}")
    return defuse(text.strip())


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("the turn is empty")
    return text


Text = Annotated[str, AfterValidator(_clean)]
Said = Annotated[Text, AfterValidator(_not_empty)]


class Message(BaseModel):
    """One turn. `content` is the words alone, in UTF-8, never empty."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: Said


class Metadata(BaseModel):
    """What conditions the companion in this conversation, in which wording she reads it, and where it came from."""

    model_config = ConfigDict(extra="forbid")

    affection_level: Level = "friend"
    emotions: list[str] = []
    topics: list[Text] = []
    memories: list[Text] = []
    source: str = "hand"
    wording: int = Field(default=0, ge=0, lt=len(WORDINGS))


class Conversation(BaseModel):
    """Turns that alternate user, assistant, …, from a user's to a companion's.

    `system` is None when the system prompt comes from the persona card (the normal case); a text given by an imported
    file is used as it stands.
    """

    model_config = ConfigDict(extra="forbid")

    id: str = ""
    system: Text | None = None
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
            card, meta.affection_level, meta.emotions[0] if meta.emotions else None, meta.memories, meta.wording
        )
        return [{"role": "system", "content": prompt}] + [m.model_dump() for m in self.messages]


@dataclass
class Reading:
    """What a file or folder held; `speakers` are the names in a talk between people."""

    conversations: list[Conversation] = field(default_factory=list)
    quarantine: list[BadLine] = field(default_factory=list)
    speakers: list[str] = field(default_factory=list)


def read_conversations(path: str | Path) -> Reading:
    """Read one file (`.jsonl`, or the guide's `.json`) or every such file of a folder.

    Bad lines do not stop the reading; they are returned with their reasons.

    Raises:
        FileNotFoundError: `path` does not exist or holds no such file.
    """
    files = find_files(Path(path), "conversations", (".jsonl", ".json"))
    return Reading(*sort_out(read_records(files, conversation_from)))


def conversation_from(value: object, name: str) -> Conversation:
    """The conversation that a JSON value holds, with the id `name` if it brings none.

    Raises:
        ValueError: it holds none, or an unsound one.
    """
    if not isinstance(value, dict):
        raise ValueError("it is JSON, but not an object with `messages`")
    messages = value.get("messages")
    if (
        isinstance(messages, list)
        and messages
        and isinstance(messages[0], dict)
        and messages[0].get("role") == "system"
    ):
        value = {**value, "system": messages[0].get("content"), "messages": messages[1:]}
    return Conversation.model_validate({"id": name, **value})


def write_conversations(path: Path, conversations: Sequence[Conversation]) -> None:
    """Write JSON Lines, whole or not at all."""
    lines = (c.model_dump_json(exclude_none=True) for c in conversations)
    write_atomically(path, "".join(f"{line}\n" for line in lines))
