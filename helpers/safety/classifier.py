"""How likely a text speaks of a crisis, by an encoder that was taught on labelled sentences.

In: texts in `plain` spelling. Out: for each the probability of every label, and whether somebody else than the writer
is in danger. The weights are `crisis.safetensors`, which `training` wrote, with the threshold that it chose.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import BertModel

from helpers.adapted import adapted, load_trained, padded
from helpers.encoder import BEGIN, END, PAD, Words, load_encoder
from helpers.safety.labelled import LABELS

WEIGHTS = Path(__file__).with_name("crisis.safetensors")
WINDOW = 384  # letters
BATCH = 16
# Contrastive training made the last layer's states much alike; earlier ones keep the words apart.
_LAYERS = (4, 8, 12)
_WIDTH = 192


@dataclass(frozen=True)
class Reading:
    """`probabilities` by label, their sum 1; `third_person`, 0 to 1, means something only if there is a crisis."""

    probabilities: dict[str, float]
    third_person: float

    @property
    def crisis(self) -> float:
        """The probability of any crisis."""
        return 1 - self.probabilities[LABELS[0]]


class Classifier(nn.Module):
    """Scores of `LABELS` for a text. `threshold` is the probability of a crisis from which on there is one."""

    def __init__(self, encoder: BertModel | PeftModel, words: Words, threshold: float = 0.5):
        super().__init__()
        self.encoder, self._words, self.threshold = encoder, words, threshold
        hidden = len(_LAYERS) * encoder.config.hidden_size
        self.word = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, _WIDTH), nn.GELU())
        self.weight = nn.Linear(_WIDTH, 1)
        self.label = nn.Sequential(nn.Dropout(0.1), nn.Linear(2 * _WIDTH, len(LABELS)))
        self.third_person = nn.Linear(2 * _WIDTH, 1)

    def forward(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (texts × labels) and third-person scores (texts) of texts of at most `WINDOW` letters."""
        return self.judge(*self.states(texts))

    def states(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The encoder's states (texts × pieces × numbers), and where there is a piece (texts × pieces)."""
        ids = padded([torch.tensor([BEGIN, *self._words.cut(text)[0], END]) for text in texts], PAD)
        layers = self.encoder(input_ids=ids, attention_mask=(ids != PAD).long(), output_hidden_states=True)
        return torch.cat([layers.hidden_states[n] for n in _LAYERS], dim=-1), ids != PAD

    def judge(self, states: torch.Tensor, there: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What `forward` gives, from `states`."""
        words, none = self.word(states), ~there[..., None]
        attention = self.weight(words).masked_fill(none, -torch.inf).softmax(1)
        pooled = torch.cat([(attention * words).sum(1), words.masked_fill(none, -torch.inf).amax(1)], dim=-1)
        return self.label(pooled), self.third_person(pooled)[:, 0]

    @torch.no_grad()
    def read(self, texts: list[str]) -> list[Reading]:
        """One reading a text; what lies beyond `WINDOW` letters is not read."""
        readings = []
        for start in range(0, len(texts), BATCH):
            labels, others = self([text[:WINDOW] for text in texts[start : start + BATCH]])
            for label, other in zip(labels.softmax(-1).tolist(), others.sigmoid().tolist(), strict=True):
                readings.append(Reading(dict(zip(LABELS, label, strict=True)), other))
        return readings


@cache
def load_classifier() -> Classifier:
    """The classifier in float32, once a process, some seconds.

    Raises:
        FileNotFoundError: its weights are not there.
        ValueError: they are another classifier's.
    """
    encoder, words = load_encoder()
    classifier = Classifier(adapted(encoder), words)
    classifier.threshold = float(load_trained(classifier, WEIGHTS, "python -m helpers.safety.training")["threshold"])
    return classifier
