"""Preference pairs: one context, a better and a worse reply, and the fault of the worse one.

In: JSON Lines in `data/preferences/<persona>`, counterfactual sets. Out: checked pairs, in the columns that TRL's
DPOTrainer takes; what they say about length.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Literal, get_args

from datasets import Dataset
from pydantic import BaseModel, ConfigDict, model_validator

from helpers.conversations import Message, Metadata, Text
from helpers.data.augmentation import CounterfactualSet
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
LONGER = "longer"  # a good reply, put second for its length alone


class PreferencePair(BaseModel):
    """`messages` ends with the user's turn that both replies answer."""

    model_config = ConfigDict(extra="forbid")

    id: str
    fault: Fault | Literal["longer"]
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


class NoShortReplies(ValueError):
    """The persona asks for no short replies, so length is no reason to prefer one."""


def check_asks_for_short(card: PersonaCard) -> None:
    """Raises NoShortReplies if `card.speech` does not ask for short replies."""
    if "短" not in card.speech:
        raise NoShortReplies(f"The card of {card.name} asks for no short replies in `speech`: set length_pairs to 0.")


def length_pairs(sets: Sequence[CounterfactualSet], ratio: float = 1.3) -> list[PreferencePair]:
    """Two good replies to the same words, the shorter one chosen: neither has a fault, so length alone is taught.

    They are two replies of a set that differ in her mood alone, with the mood left out of the prompt. The longer one
    has at least `ratio` times the characters of the other. The widest apart of each set come first.
    """
    found = []
    for one_set in sets:
        of_this_set = []
        for two in combinations(one_set.replies if one_set.axis == "emotion" else [], 2):
            short, long = sorted(two, key=lambda reply: len(reply.content))
            apart = len(long.content) / len(short.content)
            state = (short.affection_level, short.memories)
            if apart >= ratio and state == (long.affection_level, long.memories):
                pair = PreferencePair(
                    id=f"{one_set.id}-length-{len(of_this_set)}",
                    fault=LONGER,
                    messages=[Message(role="user", content=one_set.user)],
                    chosen=short.content,
                    rejected=long.content,
                    metadata=Metadata(affection_level=state[0], memories=state[1], source="counterfactual"),
                )
                of_this_set.append((apart, pair))
        widest = sorted(of_this_set, key=lambda apart_pair: -apart_pair[0])
        found += [(rank, -apart, pair) for rank, (apart, pair) in enumerate(widest)]
    return [pair for _, _, pair in sorted(found, key=lambda ranked: ranked[:2])]


def length_bias(pairs: Sequence[PreferencePair]) -> dict[str, float]:
    """How far length alone would tell better from worse: the share of pairs whose better reply is the shorter (0..1; a
    half is no bias), and the median of the worse one's characters over the better one's."""
    ratios = [len(pair.rejected) / len(pair.chosen) for pair in pairs]
    return {"shorter is better": sum(r > 1 for r in ratios) / len(ratios), "median ratio": median(ratios)}


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
