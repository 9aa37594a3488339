"""Teach the classifier of scenes: `python -m helpers.data.scene_training` writes `scenes.safetensors` anew.

In: `data/scenes/training.jsonl`. Out: LoRA weights and a head in float16, with the hash of what they learned from.
`held_out` measures on a part of the same talks: by it the constants were chosen. The test talks had no part in that.
"""

import logging
import random
from collections.abc import Sequence

import torch

from helpers.adapted import adapted, save_trained, teach
from helpers.data.scenes import (
    RANK,
    SCENES,
    TRAINING,
    WEIGHTS,
    Asked,
    Scene,
    SceneClassifier,
    Talk,
    read_talks,
)
from helpers.encoder import load_encoder
from helpers.files import sha256_json

EPOCHS, BATCH, LEARNING_RATE, SEED = 4, 16, 5e-4, 0
_log = logging.getLogger(__name__)

Marked = tuple[Asked, Scene]


def marked(talks: Sequence[Talk]) -> list[Marked]:
    """Every turn of which a person said the scene."""
    return [(talk.asked(i), turn.scene) for talk in talks for i, turn in enumerate(talk.turns) if turn.scene]


def train(talks: Sequence[Talk], epochs: int = EPOCHS, seed: int = SEED) -> SceneClassifier:
    """A classifier taught the marked turns of `talks`."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    encoder, words = load_encoder()
    classifier = SceneClassifier(adapted(encoder, RANK), words)
    turns = marked(talks)

    def batches() -> list[list[Marked]]:
        order = sorted(turns, key=lambda turn: _letters(turn[0]) + draw.uniform(0, 20))
        cut = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        draw.shuffle(cut)
        return cut

    def loss_of(batch: list[Marked]) -> torch.Tensor:
        wanted = torch.tensor([SCENES.index(scene) for _, scene in batch])
        return torch.nn.functional.cross_entropy(classifier([asked for asked, _ in batch]), wanted)

    teach(classifier, batches, -(-len(turns) // BATCH), loss_of, epochs, LEARNING_RATE)
    return classifier.eval()


def held_out(talks: Sequence[Talk], every: int = 5) -> float:
    """Share of the marked turns of each fifth talk that a classifier tells rightly which learned from the others."""
    classifier = train([talk for i, talk in enumerate(talks) if i % every])
    right = []
    for talk in talks[::every]:
        judged = classifier.judge(talk.said, talk.affection_level)
        right += [j.scene == turn.scene for j, turn in zip(judged, talk.turns, strict=True) if turn.scene]
    return sum(right) / len(right)


def digest(talks: Sequence[Talk]) -> str:
    """SHA-256 of what is learned from, in hexadecimal."""
    return sha256_json([talk.model_dump() for talk in talks])


def _letters(asked: Asked) -> int:
    before, text, _ = asked
    return sum(map(len, before)) + len(text)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    TALKS = read_talks(TRAINING)
    _log.info("held out: %.3f of the turns are told rightly", held_out(TALKS))
    save_trained(train(TALKS), WEIGHTS, {"training": digest(TALKS), "seed": str(SEED)})
