"""Counterfactual sets: one user's turn, answered anew at each level, with each memory, in each mood.

In: `data/counterfactuals/<persona>/*.jsonl`. Out: conversations that differ in one condition *and* in the reply, and a
measure of how much the replies of a set differ. A set in which only the label changes teaches that it means nothing;
one in which two lines of the prompt change together teaches to read either of them.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from helpers.conversations import Conversation, Message, Metadata, Text
from helpers.data.split import first_turn
from helpers.data.statistics import bigrams
from helpers.jsonl import BadLine, find_files, read_records, sort_out
from helpers.persona import WORDINGS, Level, PersonaCard, check_emotions

SOURCE = "counterfactual"
Axis = Literal["level", "memory", "emotion"]


class Variant(BaseModel):
    """One condition and the reply that it calls for."""

    model_config = ConfigDict(extra="forbid")

    affection_level: Level
    emotions: list[str] = []
    memories: list[Text] = []
    content: Text = Field(min_length=1)


_CONDITIONS: dict[Axis, Callable[[Variant], str]] = {
    "level": lambda variant: variant.affection_level,
    "memory": lambda variant: "／".join(variant.memories),
    "emotion": lambda variant: "／".join(variant.emotions),
}


class CounterfactualSet(BaseModel):
    """One user's turn under several conditions. Along `axis` no two conditions are the same, and nothing else changes:
    a mood that came and went with the memories could be read in their place. Where the mood follows from the condition,
    no reply of the set names one."""

    model_config = ConfigDict(extra="forbid")

    id: str
    axis: Axis
    user: Text
    replies: list[Variant] = Field(min_length=2)

    @model_validator(mode="after")
    def _conditions_differ(self) -> "CounterfactualSet":
        conditions = [self.condition(v) for v in self.replies]
        if len(set(conditions)) < len(conditions):
            raise ValueError(f"two replies stand at the same {self.axis}")
        for other, of in _CONDITIONS.items():
            if other != self.axis and len({of(v) for v in self.replies}) > 1:
                raise ValueError(f"the set is about the {self.axis}, and the {other} changes too: keep it the same")
        return self

    def condition(self, variant: Variant) -> str:
        """What sets `variant` apart in this set, in words."""
        return _CONDITIONS[self.axis](variant)


@dataclass
class CounterfactualReading:
    sets: list[CounterfactualSet] = field(default_factory=list)
    quarantine: list[BadLine] = field(default_factory=list)


def read_counterfactuals(path: Path, card: PersonaCard) -> CounterfactualReading:
    """Read one `.jsonl` file or every one of a folder; bad lines are returned with their reasons, as are sets in a mood
    that the card does not have.

    Raises:
        FileNotFoundError: `path` does not exist or holds no such file.
    """

    def parse(value: object, _: str) -> CounterfactualSet:
        found = CounterfactualSet.model_validate(value)
        for variant in found.replies:
            check_emotions(card, variant.emotions)
        return found

    return CounterfactualReading(*sort_out(read_records(find_files(path, "counterfactual sets"), parse)))


PER_AXIS = 2  # level sets, and memory sets, that are kept for testing


class TooFewSets(ValueError):
    """Not enough good sets of each kind are left to train on and to keep some for testing."""


def check_enough(reading: CounterfactualReading, path: Path, quarantine: Path) -> None:
    """Raises TooFewSets if there is no set on her mood, or with `PER_AXIS` of those on the level or on what she
    remembers kept for testing, none to train on."""
    least: dict[Axis, int] = {"level": PER_AXIS + 1, "memory": PER_AXIS + 1, "emotion": 1}
    found = {axis: sum(s.axis == axis for s in reading.sets) for axis in least}
    if any(found[axis] < number for axis, number in least.items()):
        raise TooFewSets(
            f"{path.name} holds {_listed(found)} ({len(reading.quarantine)} bad lines were set aside), and it takes "
            f"{_listed(least)}: mend the lines listed in {quarantine.name}, or add sets."
        )


def _listed(numbers: Mapping[Axis, int]) -> str:
    return ", ".join(f"{number} of axis {axis}" for axis, number in numbers.items())


def expand(counterfactual: CounterfactualSet) -> list[Conversation]:
    """One conversation for each condition, with ids such as `level-01-lover` and `memory-01-2` (the second memory)."""
    conversations = []
    for number, variant in enumerate(counterfactual.replies, start=1):
        suffix = (
            str(number) if counterfactual.axis == "memory" else counterfactual.condition(variant).replace("／", "-")
        )
        conversations.append(
            Conversation(
                id=f"{counterfactual.id}-{suffix}",
                messages=[
                    Message(role="user", content=counterfactual.user),
                    Message(role="assistant", content=variant.content),
                ],
                metadata=Metadata(
                    affection_level=variant.affection_level,
                    emotions=variant.emotions,
                    memories=variant.memories,
                    source=SOURCE,
                ),
            )
        )
    return conversations


def expand_all(sets: Sequence[CounterfactualSet]) -> list[Conversation]:
    """`expand` for each set, in order."""
    return [conversation for s in sets for conversation in expand(s)]


def dissimilarity(a: str, b: str) -> float:
    """1 − Dice coefficient of the character bigrams: 0 for the same text, 1 for texts with no pair in common."""
    x, y = bigrams(a), bigrams(b)
    if not x or not y:
        return float(a != b)
    return 1 - 2 * (x & y).total() / (x.total() + y.total())


def contrast(replies: Sequence[str]) -> float:
    """Mean dissimilarity over all pairs of replies to one user's turn, 0 to 1.

    Raises:
        ValueError: fewer than two replies.
    """
    if len(replies) < 2:
        raise ValueError("Contrast compares replies, and there is only one: give two or more.")
    pairs = [dissimilarity(a, b) for a, b in combinations(replies, 2)]
    return sum(pairs) / len(pairs)


def split_sets(
    sets: Sequence[CounterfactualSet], seed: int, held_out: Collection[str] = (), per_axis: int = PER_AXIS
) -> tuple[list[CounterfactualSet], list[CounterfactualSet]]:
    """(sets to train on, sets kept for testing): `per_axis` level sets and as many memory sets are kept, whole, and
    every other set that asks what one of these asks.

    Args:
        held_out: first turns of validation and test, as `first_turn` spells them; a set that asks one is kept too.
    """
    turn = {s.id: first_turn(expand(s)[0]) for s in sets}
    kept = {s.id for s in sets if turn[s.id] in held_out}
    for axis in ("level", "memory"):
        ids = sorted(s.id for s in sets if s.axis == axis and s.id not in kept)
        random.Random(f"{seed}:{axis}").shuffle(ids)
        kept.update(ids[:per_axis])
    asked = {turn[name] for name in kept}
    return [s for s in sets if turn[s.id] not in asked], [s for s in sets if turn[s.id] in asked]


def in_other_words(conversations: Sequence[Conversation], share: float, seed: int) -> list[Conversation]:
    """The conversations in their order, a seeded `share` of them under another wording of the system prompt, each other
    wording equally often: so that she learns what it says and not how it is put. A conversation that brings a system
    text of its own keeps it.

    Raises:
        ValueError: `share` is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"paraphrase_share is a share of the conversations, 0 to 1, not {share}.")
    places = [place for place, c in enumerate(conversations) if c.system is None]
    chosen = random.Random(f"{seed}:wording").sample(places, round(share * len(places)))
    wordings = {place: 1 + n % (len(WORDINGS) - 1) for n, place in enumerate(chosen)}
    return [
        c.model_copy(update={"metadata": c.metadata.model_copy(update={"wording": wordings.get(place, 0)})})
        for place, c in enumerate(conversations)
    ]
