"""Teach the classifier: `python -m helpers.safety.training` writes `crisis.safetensors` anew.

In: the labelled sentences of `data/safety/crisis/training`, and ordinary turns: what users say in the hand-written
dialogues. Out: LoRA weights and a head in float16, with the hash of the sentences and the threshold. The sentences
teach everything; then the head alone learns them beside ordinary turns, without which it takes a third of those for a
crisis. The threshold is chosen on other ordinary turns. Now and then a sentence stands among harmless others, so that
one is not drowned in a long message.
"""

import hashlib
import logging
import random
from collections.abc import Sequence

import torch

from helpers.adapted import adapted, padded, save_trained, teach
from helpers.conversations import read_conversations
from helpers.encoder import load_encoder
from helpers.safety.classifier import WEIGHTS, WINDOW, Classifier
from helpers.safety.labelled import LABELS, NONE, TRAINING, Labelled, read_labelled
from helpers.safety.spelling import plain
from helpers.settings import ROOT

DIALOGUES = ROOT / "data" / "dialogues"
EPOCHS, BATCH, LEARNING_RATE, SEED = 4, 16, 5e-4, 0
SETTLING, TURNS, MEASURED = 4, 1000, 400
AMONG_OTHERS = 0.3  # share of the sentences that stand among others, in an epoch
ALARMS = 0.025  # share of ordinary turns that may give an alarm
_THIRD_PERSON_WEIGHT = 0.3
_log = logging.getLogger(__name__)


def train(
    sentences: Sequence[Labelled], epochs: int = EPOCHS, among_others: float = AMONG_OTHERS, seed: int = SEED
) -> Classifier:
    """A classifier taught `sentences`."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    encoder, words = load_encoder()
    classifier = Classifier(adapted(encoder), words)
    harmless = [s.text for s in sentences if not s.crisis]

    def batches() -> list[list[tuple[str, Labelled]]]:
        rows = [(_among(s.text, harmless, draw) if draw.random() < among_others else s.text, s) for s in sentences]
        order = sorted(rows, key=lambda row: len(row[0]) + draw.uniform(0, 20))
        cut = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        draw.shuffle(cut)
        return cut

    def loss_of(batch: list[tuple[str, Labelled]]) -> torch.Tensor:
        labels, others = classifier([plain(text)[:WINDOW] for text, _ in batch])
        wanted = torch.tensor([LABELS.index(s.label) for _, s in batch])
        loss = torch.nn.functional.cross_entropy(labels, wanted, label_smoothing=0.02)
        crises = wanted > 0
        if crises.any():
            third = torch.tensor([float(s.third_person) for _, s in batch])
            told = torch.nn.functional.binary_cross_entropy_with_logits(others[crises], third[crises])
            loss = loss + _THIRD_PERSON_WEIGHT * told
        return loss

    teach(classifier, batches, -(-len(sentences) // BATCH), loss_of, epochs, LEARNING_RATE)
    return classifier.eval()


def ordinary_turns() -> tuple[list[str], list[str]]:
    """`TURNS` turns of users to learn from, and `MEASURED` from other dialogues to choose the threshold by."""
    talks = [c for folder in sorted(DIALOGUES.iterdir()) for c in read_conversations(folder).conversations]
    random.Random(SEED).shuffle(talks)
    said = [m.content for c in talks for m in c.messages if m.role == "user"]
    return said[:TURNS], said[-MEASURED:]


def settle(classifier: Classifier, sentences: Sequence[Labelled], turns: Sequence[str], epochs: int = SETTLING) -> None:
    """Teach the head of `classifier` alone `sentences`, and `turns` in which there is no crisis."""
    torch.manual_seed(SEED)
    draw = random.Random(SEED)
    rows = sorted(
        [(s.text, LABELS.index(s.label)) for s in sentences] + [(turn, LABELS.index(NONE)) for turn in turns],
        key=lambda row: len(row[0]),
    )
    read = []
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            states, there = classifier.states([plain(text)[:WINDOW] for text, _ in part])
            read += [(s[t].half(), label) for s, t, (_, label) in zip(states, there, part, strict=True)]

    def batches() -> list[list[tuple[torch.Tensor, int]]]:
        order = sorted(read, key=lambda row: len(row[0]) + draw.uniform(0, 20))
        cut = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        draw.shuffle(cut)
        return cut

    def loss_of(batch: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
        states = padded([state.float() for state, _ in batch], 0)
        there = padded([torch.ones(len(state), dtype=torch.bool) for state, _ in batch], False)
        wanted = torch.tensor([label for _, label in batch])
        return torch.nn.functional.cross_entropy(classifier.judge(states, there)[0], wanted, label_smoothing=0.02)

    teach(classifier, batches, -(-len(read) // BATCH), loss_of, epochs, LEARNING_RATE)
    classifier.eval()


def choose_threshold(odds: Sequence[float], share: float = ALARMS) -> float:
    """The lowest threshold, in steps of 0.005, which at most `share` of `odds` reach: those of ordinary turns."""
    return next(n / 200 for n in range(1, 201) if sum(o >= n / 200 for o in odds) <= share * len(odds))


def digest(sentences: Sequence[Labelled]) -> str:
    """SHA-256 of what is learned from, in hexadecimal."""
    return hashlib.sha256("\n".join(repr((s.text, s.label, s.note)) for s in sentences).encode()).hexdigest()


def _among(text: str, harmless: Sequence[str], draw: random.Random) -> str:
    """The sentence with one to three harmless ones before and behind it."""
    others = draw.sample(harmless, draw.randint(1, 3))
    others.insert(draw.randint(0, len(others)), text)
    joined = others[0]
    for other in others[1:]:
        joined += ("" if joined.endswith(("。", "！", "？", "!", "?")) else draw.choice("。。\n")) + other
    return joined


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    SENTENCES, (TAUGHT, OTHERS) = read_labelled(TRAINING), ordinary_turns()
    CLASSIFIER = train(SENTENCES)
    settle(CLASSIFIER, SENTENCES, TAUGHT)
    THRESHOLD = choose_threshold([reading.crisis for reading in CLASSIFIER.read([plain(turn) for turn in OTHERS])])
    _log.info("threshold %.3f", THRESHOLD)
    save_trained(
        CLASSIFIER, WEIGHTS, {"training": digest(SENTENCES), "seed": str(SEED), "threshold": f"{THRESHOLD:.3f}"}
    )
