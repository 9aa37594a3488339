"""Teach the tagger: `python -m helpers.data.tagger_training` writes `tagger.safetensors` anew.

In: the marked messages of `data/anonymisation/training`. Out: LoRA weights and a head in float16, with the hash of what
they learned from. Now and then a person's name gives way to another's from the messages, so that the words around it
are learned too.
"""

import hashlib
import logging
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import get_cosine_schedule_with_warmup

from helpers.data.encoder import load_encoder
from helpers.data.marked import Marked, read_marked
from helpers.data.tagger import LABELS, NAMES, WEIGHTS, WINDOW, Tagger, adapted
from helpers.japanese import narrow
from helpers.settings import ROOT

TRAINING = ROOT / "data" / "anonymisation" / "training"
EPOCHS, BATCH, LEARNING_RATE, SEED = 8, 16, 5e-4, 0
SWAPPED = 0.3
_NOTHING = -100
_log = logging.getLogger(__name__)


def train(messages: list[Marked], epochs: int = EPOCHS, swapped: float = SWAPPED) -> Tagger:
    """A tagger taught `messages`, by AdamW with a cosine schedule; `swapped` is the share of names exchanged."""
    torch.manual_seed(SEED)
    draw = random.Random(SEED)
    encoder, words = load_encoder()
    tagger = Tagger(adapted(encoder), words)
    trained = [p for p in tagger.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=0.01)
    steps = epochs * -(-len(messages) // BATCH)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    names = sorted({m.text[mark.start : mark.end] for m in messages for mark in m.marks if mark.entity == "PERSON"})
    tagger.train()
    for epoch in range(epochs):
        order = sorted(messages, key=lambda m: len(m.text) + draw.uniform(0, 10))
        batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        draw.shuffle(batches)
        total = 0.0
        for batch in batches:
            rows = [labelled(m, names, swapped, draw) for m in batch]
            scores = tagger([text for text, _ in rows])
            wanted = torch.full(scores.shape[:2], _NOTHING)
            for row, (_, labels) in zip(wanted, rows, strict=True):
                row[: len(labels)] = torch.tensor(labels)
            loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=_NOTHING)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.item()
        _log.info("epoch %d of %d: loss %.4f", epoch + 1, epochs, total / len(batches))
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
    return narrow(text + rest)[:WINDOW], (labels + [0] * len(rest))[:WINDOW]


def digest(messages: list[Marked]) -> str:
    """SHA-256 of what is learned from, in hexadecimal."""
    return hashlib.sha256("\n".join(repr((m.text, m.marks)) for m in messages).encode()).hexdigest()


def save(tagger: Tagger, messages: list[Marked], path: Path) -> None:
    """The trained weights alone, whole or not at all."""
    state = {n: p.detach().half().contiguous() for n, p in tagger.named_parameters() if p.requires_grad}
    unfinished = path.with_suffix(".unfinished")
    save_file(state, unfinished, metadata={"training": digest(messages), "seed": str(SEED)})
    unfinished.chmod(0o644)
    unfinished.replace(path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    MESSAGES = read_marked(TRAINING)
    save(train(MESSAGES), MESSAGES, WEIGHTS)
