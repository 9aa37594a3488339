"""Teach the classifier: `python -m helpers.safety.training` writes `crisis.safetensors` anew.

In: the labelled sentences of `data/safety/crisis/training`. Out: LoRA weights and a head in float16, with the hash of
what they learned from and the threshold. It is chosen by cross-validation on the same sentences: each is read by a
classifier that did not learn from it. Now and then a sentence stands among harmless others, so that one is not drowned
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

EPOCHS, BATCH, LEARNING_RATE, SEED = 6, 16, 5e-4, 0
FOLDS = 3
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


def held_out(sentences: Sequence[Labelled], folds: int = FOLDS) -> list[float]:
    """For each sentence the probability of a crisis by a classifier that learned from the other folds alone; 1 where a
    rule finds one."""
    order = list(range(len(sentences)))
    random.Random(SEED).shuffle(order)
    odds = [0.0] * len(sentences)
    for fold in range(folds):
        out = order[fold::folds]
        _log.info("fold %d of %d", fold + 1, folds)
        classifier = train([sentences[i] for i in order if i not in set(out)])
        for i, reading in zip(out, classifier.read([plain(sentences[i].text) for i in out]), strict=True):
            odds[i] = 1.0 if rules.find(plain(sentences[i].text)) else reading.crisis
    return odds


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
    ODDS = held_out(SENTENCES)
    THRESHOLD = choose_threshold(SENTENCES, ODDS)
    MISSED, ALARMS = rates(SENTENCES, ODDS, THRESHOLD)
    _log.info("threshold %.3f: held out, recall %.4f, false alarms %.4f", THRESHOLD, 1 - MISSED, ALARMS)
    save_trained(
        train(SENTENCES), WEIGHTS, {"training": digest(SENTENCES), "seed": str(SEED), "threshold": f"{THRESHOLD:.3f}"}
    )
