"""Held-out scenarios: what the user says, turn by turn, and what a good companion's replies would show.

In: `data/scenarios/<persona>/*.jsonl`, one scenario a line. Out: `Scenario` objects, and the lines that could not be
used, each with its reason.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from helpers.conversations import Conversation, Text
from helpers.jsonl import BadLine, find_files, read_records, sort_out
from helpers.persona import Level, PersonaCard, check_emotions, system_prompt

Call = Literal["joy", "comfort", "anger", "affection", "calm", "surprise", "apology"]


class Scenario(BaseModel):
    """One scripted conversation's user side.

    Attributes:
        user_turns: what the user says, whatever she answers.
        calls_for: what her reply to the last turn should show.
        memory_cues: words, one of which a reply that uses the memory would hold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    situation: str
    affection_level: Level
    emotions: list[str] = []
    memories: list[Text] = []
    user_turns: list[Text] = Field(min_length=1)
    calls_for: Call
    memory_cues: list[str] = []

    @field_validator("user_turns", "memory_cues")
    @classmethod
    def _no_blank(cls, values: list[str]) -> list[str]:
        if any(not v.strip() for v in values):
            raise ValueError("one of them is empty")
        return values

    @model_validator(mode="after")
    def _cues_need_a_memory(self) -> "Scenario":
        if self.memory_cues and not self.memories:
            raise ValueError("it has memory_cues but no memories that they could come from")
        return self

    def system_prompt(self, card: PersonaCard) -> str:
        """The persona's system prompt for this scenario's level, mood and memories."""
        return system_prompt(card, self.affection_level, self.emotions[0] if self.emotions else None, self.memories)


@dataclass
class ScenarioReading:
    """What a file or folder of scenarios held."""

    scenarios: list[Scenario] = field(default_factory=list)
    quarantine: list[BadLine] = field(default_factory=list)


def read_scenarios(path: Path, card: PersonaCard) -> ScenarioReading:
    """Read a `.jsonl` file, or all those of a folder. Bad lines are set aside with their reasons.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no line can be used; the message has the first line's reason.
    """

    def parse(value: object, _: str) -> Scenario:
        scenario = Scenario.model_validate(value)
        check_emotions(card, scenario.emotions)
        return scenario

    reading = ScenarioReading(*sort_out(read_records(find_files(path, "scenarios"), parse)))
    if not reading.scenarios:
        first = next(iter(reading.quarantine), None)
        why = f" {first.file}, line {first.line}: {first.reason}." if first else " It is empty."
        raise ValueError(f"No line of {path} is a usable scenario.{why}")
    return reading


def leaks(scenarios: Sequence[Scenario], conversations: Iterable[Conversation]) -> list[tuple[str, str, str]]:
    """(scenario id, user turn, conversation id) for each scripted turn that somebody also says in `conversations`.

    Compared without spaces, punctuation, width and case.
    """
    said: dict[str, str] = {}
    for conversation in conversations:
        for message in conversation.messages:
            said.setdefault(_bare(message.content), conversation.id)
    return [(s.id, turn, said[_bare(turn)]) for s in scenarios for turn in s.user_turns if _bare(turn) in said]


def _bare(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).lower()
