"""Teach the tagger: `python -m helpers.data.tagger_training` writes `tagger.safetensors` anew.

In: the marked messages of `data/anonymisation/training`. Out: LoRA weights and a head in float16, with the hash of what
they learned from. Now and then a person's name gives way to another's from the messages, so that the words around it
are learned too.
"""

import hashlib
import logging
import random

import torch

from helpers.adapted import adapted, save_trained, teach
from helpers.data.marked import Marked, read_marked
from helpers.data.tagger import LABELS, NAMES, WEIGHTS, WINDOW, Tagger
from helpers.encoder import load_encoder
from helpers.japanese import narrow_with_places
from helpers.settings import ROOT

TRAINING = ROOT / "data" / "anonymisation" / "training"
EPOCHS, BATCH, LEARNING_RATE, SEED = 8, 16, 5e-4, 0
SWAPPED = 0.3
_NOTHING = -100


def train(messages: list[Marked], epochs: int = EPOCHS, swapped: float = SWAPPED) -> Tagger:
    """A tagger taught `messages`, by AdamW with a cosine schedule; `swapped` is the share of names exchanged."""
    torch.manual_seed(SEED)
    draw = random.Random(SEED)
    encoder, words = load_encoder()
    tagger = Tagger(adapted(encoder), words)
    names = sorted({m.text[mark.start : mark.end] for m in messages for mark in m.marks if mark.entity == "PERSON"})

    def batches() -> list[list[Marked]]:
        order = sorted(messages, key=lambda m: len(m.text) + draw.uniform(0, 10))
        cut = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        draw.shuffle(cut)
        return cut

    def loss_of(batch: list[Marked]) -> torch.Tensor:
        rows = [labelled(m, names, swapped, draw) for m in batch]
        scores = tagger([text for text, _ in rows])
        wanted = torch.full(scores.shape[:2], _NOTHING)
        for row, (_, labels) in zip(wanted, rows, strict=True):
            row[: len(labels)] = torch.tensor(labels)
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=_NOTHING)

    teach(tagger, batches, -(-len(messages) // BATCH), loss_of, epochs, LEARNING_RATE)
    return tagger


def labelled(message: Marked, names: list[str], swapped: float, draw: random.Random) -> tuple[str, list[int]]:
    """The text as the tagger reads it and the label of each letter, with a share of the people renamed."""
    text, labels, end = "", [], 0
    for mark in sorted(message.marks, key=lambda mark: mark.start):
        words = message.text[mark.start : mark.end]
        if mark.entity == "PERSON" and draw.random() < swapped:
            words = draw.choice(names)
        between = message.text[end : mark.start]
        text, labels, end = text + between + words, labels + [0] * len(between), mark.end
        if mark.entity in NAMES:
            labels += [LABELS.index(f"+{mark.entity}"), *[LABELS.index(f"-{mark.entity}")] * (len(words) - 1)]
        else:
            labels += [0] * len(words)
    rest = message.text[end:]
    labels += [0] * len(rest)
    narrowed, places = narrow_with_places(text + rest)
    return narrowed[:WINDOW], [labels[place] for place in places[:-1]][:WINDOW]


def digest(messages: list[Marked]) -> str:
    """SHA-256 of what is learned from, in hexadecimal."""
    return hashlib.sha256("\n".join(repr((m.text, m.marks)) for m in messages).encode()).hexdigest()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    MESSAGES = read_marked(TRAINING)
    save_trained(train(MESSAGES), WEIGHTS, {"training": digest(MESSAGES), "seed": str(SEED)})
