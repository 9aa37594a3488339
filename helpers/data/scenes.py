"""Scenes: what a user's turn calls for, by a few words, the relationship level, and an encoder that was taught.

In: a talk's user turns and the level. Out: for each turn the probability of each scene. `scenes.safetensors` holds what
`scene_training` taught the encoder, from talks that a person marked turn by turn.

casual      food, weather, plans, study, jokes, facts, and small joys
emotional   worry, grief, anger, loneliness, shame, a joy that moves him; in such a talk the short answers too
romantic    closeness, longing, jealousy, flirting, dates; only between `CLOSE` levels, by definition
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import torch
from peft import PeftModel
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from transformers import BertModel

from helpers.adapted import adapted, load_trained, padded
from helpers.conversations import Said
from helpers.encoder import BEGIN, END, PAD, Words, load_encoder
from helpers.jsonl import BadLine, find_files, read_records
from helpers.persona import Level
from helpers.settings import ROOT

Scene = Literal["casual", "emotional", "romantic"]
SCENES: tuple[Scene, ...] = get_args(Scene)
CLOSE: tuple[Level, ...] = ("crush", "lover")
TRAINING, TEST = ROOT / "data" / "scenes" / "training.jsonl", ROOT / "data" / "scenes" / "test.jsonl"
WEIGHTS = Path(__file__).with_name("scenes.safetensors")

# Words that leave no doubt. Of two scenes' words in one turn neither counts.
CUES: dict[Scene, re.Pattern] = {
    "emotional": re.compile(r"つら(?:い|く|かった)|しんど|涙|泣(?:い|き|け)|亡くな|消えたい|みじめ|惨め|こわい$|怖い$"),
    "romantic": re.compile(r"会いた[いく]|大好き|好きだよ|愛して|抱きしめ|妬い|嫉妬|やきもち|デート|キス"),
}
_SURE = 0.9  # the share of the probability that goes to the scene of such words
BEFORE = 3  # turns before that are read with a turn
_PIECES = 150  # of a turn its first ones are read, of what was before its last ones
_LAYERS = (4, 8, 12)  # contrastive training made the last layer's states much alike
_WIDTH = 192
_REMEMBERED = 4096  # turns
BATCH = 16
RANK = 8  # of the LoRA layers

Asked = tuple[Sequence[str], str, Level]
"""The turns before, the turn, and the level."""


class Turn(BaseModel):
    """What the user said, and which scene a person saw in it; None where he could not decide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Said
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

    def asked(self, place: int) -> Asked:
        """What the classifier is asked about the turn at `place`."""
        return (*cut_out(self.said, place), self.affection_level)


@dataclass(frozen=True)
class Judged:
    """One turn: a probability for each of `SCENES`, 0 to 1, which add up to 1, and the word that left no doubt."""

    probabilities: tuple[float, ...]
    cue: str | None = None

    @property
    def scene(self) -> Scene:
        return SCENES[self.probabilities.index(max(self.probabilities))]


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


def cut_out(said: Sequence[str], place: int) -> tuple[tuple[str, ...], str]:
    """The turn at `place`, and those before it that are read with it."""
    return tuple(said[max(0, place - BEFORE) : place]), said[place]


class SceneClassifier(nn.Module):
    """Scores of `SCENES` for a turn, read with the level and the turns before it."""

    def __init__(self, encoder: BertModel | PeftModel, words: Words):
        super().__init__()
        self.encoder, self._words = encoder, words
        width = len(_LAYERS) * encoder.config.hidden_size
        self.word = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, _WIDTH), nn.GELU())
        self.scene = nn.Sequential(nn.Dropout(0.1), nn.Linear(2 * _WIDTH, len(SCENES)))
        self._judged: dict[Asked, Judged] = {}

    def forward(self, asked: Sequence[Asked]) -> torch.Tensor:
        """Scores (turns × scenes); minus infinity where the level rules a scene out."""
        rows, own = [], []
        for before, text, level in asked:
            told = self._words.cut("\n".join([f"{level}:", *before]))[0][-_PIECES:]
            said = self._words.cut(text)[0][:_PIECES]
            rows.append(torch.tensor([BEGIN, *told, END, *said, END]))
            own.append(torch.tensor([0] * (len(told) + 2) + [1] * (len(said) + 1)))
        ids, others = padded(rows, PAD), padded(own, 0)[..., None] == 0
        layers = self.encoder(input_ids=ids, attention_mask=(ids != PAD).long(), output_hidden_states=True)
        words = self.word(torch.cat([layers.hidden_states[n] for n in _LAYERS], dim=-1))
        mean = words.masked_fill(others, 0).sum(1) / (~others).sum(1)
        scores = self.scene(torch.cat([mean, words.masked_fill(others, -torch.inf).amax(1)], dim=-1))
        far = torch.tensor([[level not in CLOSE and scene == "romantic" for scene in SCENES] for _, _, level in asked])
        return scores.masked_fill(far, -torch.inf)

    @torch.no_grad()
    def judge(self, said: Sequence[str], level: Level, last: int | None = None) -> list[Judged]:
        """The turns of a talk, or the `last` so many of them, each told from itself and the turns before it. What was
        judged once is remembered.

        Raises:
            ValueError: nothing was said.
        """
        if not said:
            raise ValueError("A talk without a turn of the user's has no scene.")
        first = 0 if last is None else max(0, len(said) - last)
        asked = [(*cut_out(said, place), level) for place in range(first, len(said))]
        new = [one for one in dict.fromkeys(asked) if one not in self._judged]
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            for one, row in zip(batch, self(batch).softmax(-1).tolist(), strict=True):
                self._judged[one] = _with_cues(one, row)
        judged = [self._judged[one] for one in asked]
        while len(self._judged) > _REMEMBERED:
            del self._judged[next(iter(self._judged))]
        return judged


def _with_cues(asked: Asked, probabilities: list[float]) -> Judged:
    _, text, level = asked
    found = {scene: cue.group() for scene, pattern in CUES.items() if (cue := pattern.search(text))}
    if level not in CLOSE:
        found.pop("romantic", None)
    if len(found) != 1:
        return Judged(tuple(probabilities))
    ((scene, word),) = found.items()
    sure = [_SURE * (s == scene) + (1 - _SURE) * p for s, p in zip(SCENES, probabilities, strict=True)]
    return Judged(tuple(sure), word)


@cache
def load_classifier() -> SceneClassifier:
    """The classifier that was taught, in float32, once a process, some seconds.

    Raises:
        FileNotFoundError: its weights are not there.
        ValueError: they are another classifier's.
    """
    encoder, words = load_encoder()
    classifier = SceneClassifier(adapted(encoder, RANK), words)
    load_trained(classifier, WEIGHTS, "python -m helpers.data.scene_training")
    return classifier
