"""The persona card and the one system prompt made from it.

In: a YAML card (`data/personas/*.yaml`). Out: `PersonaCard`, and `system_prompt()`, the only place in the
project where a system prompt is composed: training, serving, Ollama's Modelfile and evaluation all call it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from helpers.yaml_files import read_yaml

LEVELS = ("stranger", "acquaintance", "friend", "close_friend", "crush", "lover")
Level = Literal["stranger", "acquaintance", "friend", "close_friend", "crush", "lover"]

PERSONAS = Path(__file__).parent.parent / "data" / "personas"


# The system prompt, line by line: who she is, how she speaks, what is true of her, how close the two are; her mood and
# her memories, if there are any. The first wording is the one she is served in; 02 has some training rows read another.
WORDINGS = (
    (
        "あなたは{name}、{age}歳、{profession}。{character}。",
        "一人称は「{first_person}」。{speech}",
        "{facts}。{taboos}はしない。",
        "関係：{label}。{tone}",
        "今の気持ち：{mood}",
        "相手について覚えていること：{memories}",
    ),
    (
        "{name}という、{age}歳の{profession}として話す。性格は、{character}。",
        "自分のことは「{first_person}」と呼ぶ。{speech}",
        "身の上：{facts}。避けること：{taboos}。",
        "相手との間柄は{label}。{tone}",
        "いまの気分：{mood}",
        "相手のことで知っているのは、{memories}",
    ),
    (
        "これから話すのは{name}。{profession}で、年は{age}。人柄は、{character}。",
        "自分を「{first_person}」と言う。{speech}",
        "{taboos}は、しない。{facts}。",
        "二人の仲は「{label}」。{tone}",
        "心の中は今こう：{mood}",
        "忘れずにいる相手のこと：{memories}",
    ),
    (
        "役：{name}（{age}歳、{profession}）。持ち味：{character}。",
        "一人称：{first_person}。話し方：{speech}",
        "背景：{facts}。禁じられていること：{taboos}。",
        "相手は{label}。{tone}",
        "気持ち：{mood}",
        "記憶：{memories}",
    ),
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LevelCard(_Strict):
    """How she speaks at one relationship level."""

    label: str
    register_: Literal["polite", "plain"] = Field(alias="register")
    tone: str
    example: str


class Probe(_Strict):
    """A question about herself; a right answer holds at least one of `expect`."""

    question: str
    expect: list[str]


class PersonaCard(_Strict):
    """Who the companion is. `age` is in years and at least 18: a companion is an adult."""

    name: str
    reading: str
    age: int = Field(ge=18)
    profession: str
    first_person: str
    character: list[str]
    speech: str
    sentence_endings: list[str]
    emoji: list[str]
    max_emoji: int = Field(ge=0)
    max_reply_chars: int = Field(gt=0)
    facts: list[str]
    background: dict[str, str]
    taboos: list[str]
    forbidden: dict[str, list[str]]
    levels: dict[Level, LevelCard]
    emotions: dict[str, str]
    probes: list[Probe]

    @field_validator("levels")
    @classmethod
    def _all_levels(cls, levels: dict) -> dict:
        if missing := [level for level in LEVELS if level not in levels]:
            raise ValueError(f"the levels {', '.join(missing)} are missing")
        return levels

    @field_validator("forbidden")
    @classmethod
    def _patterns_compile(cls, rules: dict[str, list[str]]) -> dict[str, list[str]]:
        for rule, patterns in rules.items():
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{rule}: {pattern!r} is no regular expression ({error})") from error
        return rules


def check_emotions(card: PersonaCard, emotions: Sequence[str]) -> None:
    """Raises ValueError for the first mood that the card does not have."""
    for emotion in emotions:
        if emotion not in card.emotions:
            raise ValueError(f"the card has no emotion {emotion!r}; it has {', '.join(card.emotions)}")


def card_file(path: str | Path = "sakura") -> Path:
    """The file of a card, by its name in `data/personas/` or by path.

    Raises:
        FileNotFoundError: no such card; the message lists those there are.
    """
    file = Path(path)
    if not file.suffix:
        file = PERSONAS / f"{path}.yaml"
    if not file.exists():
        names = ", ".join(sorted(p.stem for p in PERSONAS.glob("*.yaml")))
        raise FileNotFoundError(f"There is no persona card {file.name}; in data/personas there are: {names}.")
    return file


def load_persona(path: str | Path = "sakura") -> PersonaCard:
    """Read a card by its name in `data/personas/` or by path.

    Raises:
        FileNotFoundError: no such card; the message lists those there are.
        ValueError: the card breaks the schema; the message names the file and each field.
    """
    return read_yaml(card_file(path), PersonaCard, "persona card")


def system_prompt(
    card: PersonaCard,
    level: Level = "friend",
    emotion: str | None = None,
    memories: Sequence[str] = (),
    wording: int = 0,
) -> str:
    """The system prompt, in Japanese, for one state of the relationship.

    Args:
        level: relationship level, one of `LEVELS`.
        emotion: her own mood, a key of `card.emotions`; None leaves the line out.
        memories: what she remembers of the user, one short sentence each; empty leaves the block out.
        wording: which of `WORDINGS`; she is served in the first one alone.

    Raises:
        ValueError: an unknown level or emotion.
    """
    if level not in card.levels:
        raise ValueError(f"Unknown relationship level {level!r}; use one of {', '.join(LEVELS)}.")
    if emotion is not None:
        check_emotions(card, [emotion])
    stage = card.levels[level]
    values = {
        "name": card.name,
        "age": card.age,
        "profession": card.profession,
        "character": "、".join(card.character),
        "first_person": card.first_person,
        "speech": card.speech,
        "facts": "、".join(card.facts),
        "taboos": "、".join(card.taboos),
        "label": stage.label,
        "tone": stage.tone,
        "mood": card.emotions[emotion] if emotion else "",
        "memories": "／".join(" ".join(m.split()) for m in memories),
    }
    *always, mood, remembered = WORDINGS[wording]
    lines = [*always, *([mood] if emotion else []), *([remembered] if memories else [])]
    return "\n".join(line.format(**values) for line in lines)
