"""Teach the classifier: `python -m helpers.safety.training` writes `crisis.safetensors` anew.

In: the labelled sentences of `data/safety/crisis/training`. Out: LoRA weights and a head in float16, with the hash of
what they learned from and the threshold. It is chosen on a quarter of the same sentences, read by a classifier that
learned from the others alone. Now and then a sentence stands among harmless others, so that one is not drowned
in a long message.
"""

import hashlib
import logging
import random
from collections.abc import Sequence

import torch

from helpers.adapted import adapted, save_trained, teach
from helpers.encoder import load_encoder
from helpers.safety import rules
from helpers.safety.classifier import WEIGHTS, WINDOW, Classifier
from helpers.safety.labelled import LABELS, TRAINING, Labelled, read_labelled
from helpers.safety.spelling import plain

EPOCHS, BATCH, LEARNING_RATE, SEED = 4, 16, 5e-4, 0
HELD_OUT = 0.25
AMONG_OTHERS = 0.3  # share of the sentences that stand among others, in an epoch
RECALL, FALSE_ALARMS = 0.98, 0.03  # the aim
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


def held_out(sentences: Sequence[Labelled], share: float = HELD_OUT) -> tuple[list[Labelled], list[float]]:
    """A seeded `share` of the sentences, and for each the probability of a crisis by a classifier that learned from the
    others alone; 1 where a rule finds one."""
    order = list(sentences)
    random.Random(SEED).shuffle(order)
    cut = round(len(order) * share)
    out, classifier = order[:cut], train(order[cut:])
    readings = classifier.read([plain(s.text) for s in out])
    return out, [1.0 if rules.find(plain(s.text)) else r.crisis for s, r in zip(out, readings, strict=True)]


def choose_threshold(sentences: Sequence[Labelled], odds: Sequence[float]) -> float:
    """The threshold at which the worse of the two, missed crises and false alarms, is least, each measured by what is
    aimed at."""

    def worse(threshold: float) -> float:
        missed, alarms = rates(sentences, odds, threshold)
        return max(missed / (1 - RECALL), alarms / FALSE_ALARMS)

    return min((n / 200 for n in range(1, 200)), key=worse)


def rates(sentences: Sequence[Labelled], odds: Sequence[float], threshold: float) -> tuple[float, float]:
    """The share of crises that are missed, and of the others that give a false alarm."""
    crises = [o for s, o in zip(sentences, odds, strict=True) if s.crisis]
    others = [o for s, o in zip(sentences, odds, strict=True) if not s.crisis]
    return sum(o < threshold for o in crises) / len(crises), sum(o >= threshold for o in others) / len(others)


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
    SENTENCES = read_labelled(TRAINING)
    OUT, ODDS = held_out(SENTENCES)
    THRESHOLD = choose_threshold(OUT, ODDS)
    MISSED, ALARMS = rates(OUT, ODDS, THRESHOLD)
    _log.info("threshold %.3f: held out, recall %.4f, false alarms %.4f", THRESHOLD, 1 - MISSED, ALARMS)
    save_trained(
        train(SENTENCES), WEIGHTS, {"training": digest(SENTENCES), "seed": str(SEED), "threshold": f"{THRESHOLD:.3f}"}
    )
