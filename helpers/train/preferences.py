"""Preference pairs: one context, a better and a worse reply, and the fault of the worse one.

In: JSON Lines in `data/preferences/<persona>`. Out: checked pairs, in the columns that TRL's DPOTrainer takes.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from datasets import Dataset
from pydantic import BaseModel, ConfigDict, model_validator

from helpers.conversations import Message, Metadata, Text
from helpers.jsonl import BadLine, find_files, read_records, sort_out, write_quarantine
from helpers.persona import PersonaCard, check_emotions, system_prompt

Fault = Literal[
    "mechanical",
    "out_of_character",
    "preachy",
    "too_long",
    "ignores_feeling",
    "forgets",
    "too_familiar",
    "overconfident",
]
FAULTS: tuple[str, ...] = get_args(Fault)


class PreferencePair(BaseModel):
    """`messages` ends with the user's turn that both replies answer."""

    model_config = ConfigDict(extra="forbid")

    id: str
    fault: Fault
    messages: list[Message]
    chosen: Text
    rejected: Text
    metadata: Metadata

    @model_validator(mode="after")
    def _sound(self) -> "PreferencePair":
        roles = [m.role for m in self.messages]
        if roles != [("user", "assistant")[i % 2] for i in range(len(roles))] or len(roles) % 2 == 0:
            raise ValueError("the context must alternate user, assistant, … and end with the user")
        if self.chosen == self.rejected or not self.chosen or not self.rejected:
            raise ValueError("chosen and rejected must be two different replies")
        return self

    def prompt(self, card: PersonaCard) -> list[dict[str, str]]:
        """The context as a chat, system prompt first."""
        meta = self.metadata
        system = system_prompt(card, meta.affection_level, meta.emotions[0] if meta.emotions else None, meta.memories)
        return [{"role": "system", "content": system}] + [m.model_dump() for m in self.messages]


MIN_PAIRS = 16


class TooFewPairs(ValueError):
    """Not enough good pairs are left to train on and to hold some out."""


def read_preferences(folder: Path, card: PersonaCard, quarantine: Path) -> tuple[list[PreferencePair], list[BadLine]]:
    """All pairs of a `.jsonl` file or a folder of them, and the lines that could not be used, with reasons; these are
    in the file `quarantine` even if there are too few good ones.

    Raises:
        FileNotFoundError: there is no such file.
        TooFewPairs: fewer than `MIN_PAIRS` good ones.
    """

    def parse(value: object, _: str) -> PreferencePair:
        pair = PreferencePair.model_validate(value)
        check_emotions(card, pair.metadata.emotions)
        return pair

    pairs, bad = sort_out(read_records(find_files(folder, "preference pairs"), parse))
    write_quarantine(quarantine, bad)
    if len(pairs) < MIN_PAIRS:
        raise TooFewPairs(
            f"{folder.name} holds {len(pairs)} good preference pairs ({len(bad)} bad lines were set aside), fewer than "
            f"{MIN_PAIRS}: mend the lines listed in {quarantine.name}, or add pairs."
        )
    return pairs, bad


def faults(pairs: Sequence[PreferencePair]) -> Counter:
    """How many pairs show each fault."""
    return Counter(pair.fault for pair in pairs)


def as_preference_dataset(pairs: Sequence[PreferencePair], card: PersonaCard) -> Dataset:
    """TRL's conversational preference format: `prompt`, `chosen` and `rejected` are lists of messages."""
    return Dataset.from_list(
        [
            {
                "prompt": pair.prompt(card),
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs
        ]
    )
