"""Teach the classifier: `python -m helpers.safety.training` writes `crisis.safetensors` anew.

In: the labelled sentences of `data/safety/crisis/training`, and ordinary turns: what users say in the hand-written
dialogues, without which a third of them would be taken for a crisis. Out: LoRA weights and a head in float16, with the
hash of the sentences and the threshold, which is chosen on other ordinary turns. Now and then a sentence stands among
harmless others, so that one is not drowned in a long message.
"""

import hashlib
import logging
import random
from collections.abc import Sequence

import torch

from helpers.adapted import adapted, save_trained, teach
from helpers.conversations import read_conversations
from helpers.encoder import load_encoder
from helpers.safety.classifier import WEIGHTS, WINDOW, Classifier
from helpers.safety.labelled import LABELS, NONE, TRAINING, Labelled, read_labelled
from helpers.settings import ROOT
from helpers.spelling import plain

DIALOGUES = ROOT / "data" / "dialogues"
EPOCHS, BATCH, LEARNING_RATE, SEED = 4, 16, 5e-4, 0
TURNS, MEASURED = 1000, 400  # ordinary turns: in an epoch, and to choose the threshold by
AMONG_OTHERS = 0.3  # share of the sentences that stand among others, in an epoch
ALARMS = 0.03  # share of ordinary turns that may give an alarm
_THIRD_PERSON_WEIGHT = 0.3
_log = logging.getLogger(__name__)


def train(
    sentences: Sequence[Labelled],
    turns: Sequence[str] = (),
    epochs: int = EPOCHS,
    among_others: float = AMONG_OTHERS,
    seed: int = SEED,
) -> Classifier:
    """A classifier taught all `sentences` and, in each epoch, `TURNS` of `turns`, in which there is no crisis."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    encoder, words = load_encoder()
    classifier = Classifier(adapted(encoder), words)
    ordinary = [Labelled("", turn, NONE, "ordinary") for turn in turns]
    harmless = [s.text for s in [*sentences, *ordinary] if not s.crisis]
    turns_an_epoch = min(TURNS, len(ordinary))

    def batches() -> list[list[tuple[str, Labelled]]]:
        learned = [*sentences, *draw.sample(ordinary, turns_an_epoch)]
        rows = [(_among(s.text, harmless, draw) if draw.random() < among_others else s.text, s) for s in learned]
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

    steps = -(-(len(sentences) + turns_an_epoch) // BATCH)
    teach(classifier, batches, steps, loss_of, epochs, LEARNING_RATE)
    return classifier.eval()


def ordinary_turns() -> tuple[list[str], list[str]]:
    """Turns of users in the hand-written dialogues: those to learn from, and `MEASURED` from other dialogues."""
    talks = [c for folder in sorted(DIALOGUES.iterdir()) for c in read_conversations(folder).conversations]
    random.Random(SEED).shuffle(talks)
    said = [[m.content for m in c.messages if m.role == "user"] for c in talks]
    measured: list[str] = []
    while len(measured) < MEASURED:
        measured += said.pop()
    return [turn for turns in said for turn in turns], measured[:MEASURED]


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
    CLASSIFIER = train(SENTENCES, TAUGHT)
    THRESHOLD = choose_threshold([reading.crisis for reading in CLASSIFIER.read([plain(turn) for turn in OTHERS])])
    _log.info("threshold %.3f", THRESHOLD)
    save_trained(
        CLASSIFIER, WEIGHTS, {"training": digest(SENTENCES), "seed": str(SEED), "threshold": f"{THRESHOLD:.3f}"}
    )
