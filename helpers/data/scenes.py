"""Scenes: what a user's turn calls for, by a few words, the relationship level and embeddings.

In: a talk's user turns and the level. Out: for each turn the probability of each scene. A linear layer weighs the
features; `scenes.safetensors` holds what `scene_training` taught it from talks that a person marked turn by turn.

casual      food, weather, plans, study, jokes, facts, and small joys
emotional   worry, grief, anger, loneliness, shame, a joy that moves him; in such a talk the short answers too
romantic    closeness, longing, jealousy, flirting, dates; only between `CLOSE` levels, by definition
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load_file

from helpers.conversations import Text
from helpers.embeddings import embed
from helpers.jsonl import BadLine, find_files, read_records
from helpers.persona import Level
from helpers.settings import ROOT

Scene = Literal["casual", "emotional", "romantic"]
SCENES: tuple[Scene, ...] = get_args(Scene)
CLOSE: tuple[Level, ...] = ("crush", "lover")
TRAINING, TEST = ROOT / "data" / "scenes" / "training.jsonl", ROOT / "data" / "scenes" / "test.jsonl"
WEIGHTS = Path(__file__).with_name("scenes.safetensors")

CUES: dict[Scene, re.Pattern] = {
    "emotional": re.compile(
        r"つら[いくか]|しんど|苦し|悲し|さみし|さびし|[寂淋]し|泣|涙|悔し|怖[いくか]|こわ[いくか]|不安|腹立|むかつ|ムカつ"
        r"|許さん|許せな|傷つ|消えたい|亡くな|情けな|みじめ|惨め|震え|じんと|ひとりで?[はも]"
    ),
    "romantic": re.compile(
        r"会いた[いく]|大?好き(?=[だって。…！!?？]|$)|愛して|ぎゅ[っう]|抱き|手.{0,2}つな|キス|デート|恋人|元カノ|元カレ"
        r"|付き合って(?:る|から|た|$)|妬い|嫉妬|やきもち|おそろい|二人(?:で|きり)|かわいい|照れ|気になる？|待って?た？"
    ),
}
TOLD = 2 * len(CUES) + 1  # features besides the two embeddings: cues now and before, and whether the level is close
_BEFORE = 2  # turns before that count, together as much as the turn itself


class Turn(BaseModel):
    """What the user said, and which scene a person saw in it; None where he could not decide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Text = Field(min_length=1)
    scene: Scene | None


class Talk(BaseModel):
    """The user's side of a talk, in its order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    affection_level: Level
    turns: list[Turn] = Field(min_length=1)

    @property
    def said(self) -> list[str]:
        return [turn.text for turn in self.turns]


@dataclass(frozen=True)
class Judged:
    """One turn: a probability for each of `SCENES`, 0 to 1, which add up to 1, and the cue words found in the turn."""

    probabilities: tuple[float, ...]
    cues: dict[Scene, str]

    @property
    def scene(self) -> Scene:
        return SCENES[int(np.argmax(self.probabilities))]


def read_talks(path: Path) -> list[Talk]:
    """All talks of a `.jsonl` file or a folder of them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not sound; what is learned from and tested on is mended, not quarantined.
    """
    talks = []
    for record in read_records(find_files(path, "talks"), lambda value, _: Talk.model_validate(value)):
        if isinstance(record, BadLine):
            raise ValueError(f"{record.file}, line {record.line}: {record.reason}.")
        talks.append(record)
    return talks


def features(said: Sequence[str], level: Level) -> np.ndarray:
    """Turns × 773: the turn's embedding, the mean of the turns before it, and what the words and the level tell."""
    vectors = np.stack([_vector(text) for text in said])
    cues = np.array([[bool(pattern.search(text)) for pattern in CUES.values()] for text in said], float)
    rows = []
    for i in range(len(said)):
        before = slice(max(0, i - _BEFORE), i) if i else slice(0, 1)
        told = [*cues[i], *cues[before].mean(axis=0), level in CLOSE]
        rows.append(np.concatenate([vectors[i], vectors[before].mean(axis=0), told]))
    return np.stack(rows)


class SceneClassifier:
    """`weights` (3 × features) and `bias` (3) of the linear layer."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray):
        self.weights, self.bias = weights, bias

    def judge(self, said: Sequence[str], level: Level) -> list[Judged]:
        """Each turn of a talk, told from itself and the turns before it. What came after changes nothing.

        Raises:
            ValueError: nothing was said.
        """
        if not said:
            raise ValueError("A talk without a turn of the user's has no scene.")
        scores = features(said, level) @ self.weights.T + self.bias
        if level not in CLOSE:
            scores[:, SCENES.index("romantic")] = -np.inf
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares = odds / odds.sum(axis=1, keepdims=True)
        return [Judged(tuple(map(float, row)), cues_in(text)) for text, row in zip(said, shares, strict=True)]


def cues_in(text: str) -> dict[Scene, str]:
    """The first cue word of each scene that has one in `text`."""
    return {scene: found.group() for scene, pattern in CUES.items() if (found := pattern.search(text))}


@cache
def load_classifier() -> SceneClassifier:
    """The classifier that was taught."""
    stored = load_file(WEIGHTS)
    return SceneClassifier(stored["weights"], stored["bias"])


@lru_cache(maxsize=4096)
def _vector(text: str) -> np.ndarray:
    return embed([text])[0]
