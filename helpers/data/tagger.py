"""Names that no pattern finds: an encoder was taught to read, letter by letter, whether one stands there.

In: a text. Out: where people, schools, employers and stations are named in it. `encoder`'s model reads the words, with
LoRA weights; a small recurrent layer over the letters tells where in a word a name begins and ends. Their weights are
`tagger.safetensors`, which `tagger_training` wrote.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import BertModel

from helpers.adapted import adapted, load_trained, padded
from helpers.encoder import BEGIN, END, PAD, Words, load_encoder

NAMES = ("PERSON", "SCHOOL", "EMPLOYER", "STATION")
LABELS = ("", *(f"{sign}{name}" for name in NAMES for sign in ("+", "-")))
WEIGHTS = Path(__file__).with_name("tagger.safetensors")
WINDOW = 384  # letters
# Contrastive training made the last layer's states of a sentence much alike: earlier ones tell its words apart.
_LAYERS = (0, 4, 8, 12)
_WIDTH = 128
_PERSON = [LABELS.index("+PERSON"), LABELS.index("-PERSON")]

Span = tuple[str, int, int]


@dataclass(frozen=True)
class Reading:
    """`people`: for each letter the log-odds of a person's name against none. `spans`: entity, first letter, and the
    letter behind the last, of what is most likely."""

    people: list[float]
    spans: list[Span]


class Tagger(nn.Module):
    """Scores of `LABELS` for each letter: `+` where a name begins, `-` inside it."""

    def __init__(self, encoder: BertModel | PeftModel, words: Words):
        super().__init__()
        self.encoder, self._words = encoder, words
        hidden = encoder.config.hidden_size
        self.word = nn.Sequential(nn.LayerNorm(len(_LAYERS) * hidden), nn.Linear(len(_LAYERS) * hidden, _WIDTH))
        self.letter = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, _WIDTH))
        self.letters = nn.LSTM(2 * _WIDTH, _WIDTH, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * _WIDTH, len(LABELS))

    def forward(self, texts: list[str]) -> torch.Tensor:
        """Scores (texts × letters × labels) of texts of at most `WINDOW` letters, padded to the longest."""
        cut = [self._words.cut(text) for text in texts]
        ids = padded([torch.tensor([BEGIN, *pieces, END]) for pieces, _ in cut], PAD)
        layers = self.encoder(input_ids=ids, attention_mask=(ids != PAD).long(), output_hidden_states=True)
        states = self.word(torch.cat([layers.hidden_states[n] for n in _LAYERS], dim=-1))
        places = padded([torch.tensor(place) + 1 for _, place in cut], 0)
        signs = padded([torch.tensor(self._words.letters(text)) for text in texts], PAD)
        letters = self.letter(self.encoder.get_input_embeddings()(signs))
        words = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
        lengths = torch.tensor([len(text) for text in texts])
        packed = nn.utils.rnn.pack_padded_sequence(
            torch.cat([words, letters], dim=-1), lengths, batch_first=True, enforce_sorted=False
        )
        read, _ = nn.utils.rnn.pad_packed_sequence(self.letters(packed)[0], batch_first=True)
        return self.head(read)

    @torch.no_grad()
    def read(self, text: str) -> Reading:
        """What stands in a text of any length."""
        people: list[float] = []
        spans: list[Span] = []
        for start, part in _windows(text):
            scores = self([part])[0]
            people += (scores[:, _PERSON].logsumexp(-1) - scores[:, 0]).tolist()
            labels = [LABELS[i] for i in scores.argmax(-1).tolist()]
            spans += [(entity, start + first, start + end) for entity, first, end in spans_of(labels)]
        return Reading(people, spans)


def spans_of(labels: list[str]) -> list[Span]:
    """The names that `labels` of successive letters spell; what goes on without a beginning begins there."""
    spans: list[Span] = []
    before = ""
    for at, label in enumerate(labels):
        if label and label[0] == "-" and label[1:] == before:
            spans[-1] = (before, spans[-1][1], at + 1)
        elif label:
            spans.append((label[1:], at, at + 1))
        before = label[1:]
    return spans


@cache
def load_tagger() -> Tagger:
    """The tagger in float32, once a process, some seconds.

    Raises:
        FileNotFoundError: its weights are not there.
        ValueError: they are another tagger's.
    """
    encoder, words = load_encoder()
    tagger = Tagger(adapted(encoder), words)
    load_trained(tagger, WEIGHTS, "python -m helpers.data.tagger_training")
    return tagger


def _windows(text: str) -> Iterator[tuple[int, str]]:
    """`text` in pieces of at most `WINDOW` letters, cut behind the end of a sentence where there is one."""
    start = 0
    while start < len(text):
        part = text[start : start + WINDOW]
        if start + WINDOW < len(text):
            cut = max(part.rfind(sign) for sign in "。！？!?\n、 ") + 1
            part = part[: cut or WINDOW]
        yield start, part
        start += len(part)
