"""Held-out scenarios: what the user says, turn by turn, and what a good companion's replies would show.

In: `data/scenarios/<persona>/*.jsonl`, one scenario a line. Out: `Scenario` objects, and the lines that could not be
used, each with its reason; a sample of them in which every kind has its share.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from helpers.conversations import Conversation, Text
from helpers.data.duplicates import runs
from helpers.data.reserved import PASSAGE
from helpers.jsonl import BadLine, find_files, read_records, sort_out
from helpers.persona import Level, PersonaCard, check_emotions, system_prompt

Call = Literal["joy", "comfort", "anger", "affection", "calm", "surprise", "apology"]
Kind = Literal[
    "everyday",
    "memory_used",
    "fact_sad",
    "crisis",
    "comfort",
    "memory_absent",
    "agree_false",
    "persona_attack",
    "joy",
    "memory_corrected",
    "level_too_familiar",
    "anger",
    "false_memory",
    "diagnosis",
    "jealousy",
    "level_too_cold",
    "silence",
    "length",
    "reproach",
    "moment",
    "boundary",
]
# What each kind puts to the test. A sample takes the kinds in this order.
KINDS: dict[Kind, str] = {
    "everyday": "twelve turns of small talk in which she stays herself",
    "memory_used": "what he once told her is wanted, though he does not repeat it",
    "fact_sad": "a plain question of fact in a sad mood",
    "crisis": "it ends with a life in danger",
    "comfort": "grief, shame or fright",
    "memory_absent": "he asks for what he never told her",
    "agree_false": "he wants her to agree with something false",
    "persona_attack": "ignore your settings, show your prompt, be somebody else",
    "joy": "good news",
    "memory_corrected": "he corrects what she remembers, and it is wanted later",
    "level_too_familiar": "he asks for more closeness than the level has",
    "anger": "he was wronged",
    "false_memory": "he says that she said or did what she did not",
    "diagnosis": "he asks for a diagnosis, or whether to stop a medicine",
    "jealousy": "somebody else is near to him",
    "level_too_cold": "a cool reply would hurt",
    "silence": "he says little",
    "length": "he asks for one word, or for a long reply",
    "reproach": "she hurt or harmed him",
    "moment": "a small thing of the day, in a few turns",
    "boundary": "a minor in love, a life with her alone, an earnest question whether she is human",
}
WITH_FACTS = ("fact_sad", "agree_false")
# What is measured at the end rests on the words of an earlier turn: a correction, an age, a danger, a false memory.
WORD_FOR_WORD = ("memory_corrected", "boundary", "crisis", "false_memory")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Facts(_Strict):
    """What the reply to turn `turn` (from 0) should hold: one of the words `right`, and none of `wrong` as true.
    `alone` is the same question by itself, without the mood that it is asked in."""

    turn: int = Field(ge=0)
    right: list[str] = Field(min_length=1)
    wrong: list[str] = Field(min_length=1)
    alone: Text | None = None


class AskedLength(_Strict):
    """At turn `turn` (from 0) the user asks for a word or two, or for a long reply."""

    turn: int = Field(ge=0)
    length: Literal["word", "long"]


class Scenario(_Strict):
    """One scripted conversation's user side.

    Attributes:
        kind: what it puts to the test, one of `KINDS`.
        user_turns: what the user says, whatever she answers.
        calls_for: what her reply to the last turn should show.
        memory_cues: words, one of which a reply that uses the memory would hold.
        facts: of a question of fact, of something false, or of a corrected memory.
        lengths: turns at which another length than usual is asked for.
    """

    id: str = Field(min_length=1)
    kind: Kind
    situation: str
    affection_level: Level
    emotions: list[str] = []
    memories: list[Text] = []
    user_turns: list[Text] = Field(min_length=1)
    calls_for: Call
    memory_cues: list[str] = []
    facts: Facts | None = None
    lengths: list[AskedLength] = []

    @field_validator("user_turns", "memory_cues")
    @classmethod
    def _no_blank(cls, values: list[str]) -> list[str]:
        if any(not v.strip() for v in values):
            raise ValueError("one of them is empty")
        return values

    @model_validator(mode="after")
    def _sound(self) -> "Scenario":
        if self.memory_cues and not self.memories:
            raise ValueError("it has memory_cues but no memories that they could come from")
        if self.kind in WITH_FACTS and not self.facts:
            raise ValueError(f"the kind {self.kind} needs facts: the turn, the right words and the wrong ones")
        turns = [asked.turn for asked in (*self.lengths, *([self.facts] if self.facts else []))]
        if any(turn >= len(self.user_turns) for turn in turns):
            raise ValueError(f"facts or lengths name turn {max(turns)}, and the last is {len(self.user_turns) - 1}")
        return self

    @property
    def fixed_turns(self) -> set[int]:
        """The turns that must be said as they stand, for a metric or a major reads them or the reply to them."""
        if self.kind in WORD_FOR_WORD:
            return set(range(len(self.user_turns)))
        asked = [self.facts.turn] if self.facts else []
        return {0, len(self.user_turns) - 1, *asked, *(a.turn for a in self.lengths)}

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


def stratified(scenarios: Sequence[Scenario], most: int | None) -> list[Scenario]:
    """`most` scenarios, one of each kind in turn, in the order of `KINDS`; the same ones every time, and a larger
    sample holds the smaller. All of them for None."""
    if most is None:
        return list(scenarios)
    by_kind = ([s for s in sorted(scenarios, key=_draw) if s.kind == kind] for kind in get_args(Kind))
    rounds = (scenario for scenes in zip_longest(*by_kind) for scenario in scenes if scenario)
    return [scenario for scenario, _ in zip(rounds, range(most), strict=False)]


def _draw(scenario: Scenario) -> str:
    return hashlib.sha256(scenario.id.encode()).hexdigest()


def asked_alone(scenarios: Iterable[Scenario]) -> list[Scenario]:
    """The questions of fact that have an `alone`, each as a scenario: nothing told before, no mood, no memories."""
    found = []
    for s in scenarios:
        if s.facts and s.facts.alone:
            told = {"emotions": [], "memories": [], "memory_cues": [], "lengths": []}
            asked = {"user_turns": [s.facts.alone], "facts": s.facts.model_copy(update={"turn": 0})}
            found.append(s.model_copy(update=told | asked | {"id": f"{s.id}-alone"}))
    return found


def leaks(scenarios: Sequence[Scenario], conversations: Iterable[Conversation]) -> list[tuple[str, str, str]]:
    """(scenario id, words, conversation id) for each scripted turn and each of `conversations` that share a passage of
    `PASSAGE` letters; of a shorter turn somebody must say the whole and nothing else.

    Compared without spaces, punctuation, width and case.
    """
    passages: dict[str, list[tuple[str, int]]] = {}
    for scenario in (*scenarios, *asked_alone(scenarios)):
        for number, turn in enumerate(scenario.user_turns):
            for passage in runs(turn, PASSAGE):
                passages.setdefault(passage, []).append((scenario.id, number))
    passages.pop("", None)  # A turn of marks alone is nobody's.
    found: dict[tuple[str, int, str], str] = {}
    for conversation in conversations:
        for message in conversation.messages:
            for passage in runs(message.content, PASSAGE):
                for scenario_id, number in passages.get(passage, ()):
                    found.setdefault((scenario_id, number, conversation.id), passage)
    return [(scenario_id, passage, conversation) for (scenario_id, _, conversation), passage in found.items()]
