"""Teach the classifier of scenes: `python -m helpers.data.scene_training` writes `scenes.safetensors` anew.

In: `data/scenes/training.jsonl`. Out: a logistic regression over `scenes.features`, with the hash of what it learned
from. Also `cross_validated`, by which its constants were chosen; the test talks had no part in that.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from safetensors.numpy import save_file

from helpers.data.scenes import (
    CLOSE,
    SCENES,
    TOLD,
    TRAINING,
    WEIGHTS,
    SceneClassifier,
    Talk,
    Turn,
    features,
    read_talks,
)
from helpers.files import sha256_json, whole_file

PENALTY = 1e-3  # on the squares of the weights
FOLDS = 5
_ROMANTIC = SCENES.index("romantic")
_log = logging.getLogger(__name__)


def train(talks: Sequence[Talk], penalty: float = PENALTY) -> SceneClassifier:
    """Multinomial logistic regression by L-BFGS, on features of mean 0 and, over each kind of them, variance 1. Each
    scene weighs as much as the others; a turn is asked of the scenes that its level allows."""
    told = [(row, turn.scene, t.affection_level) for t in talks for row, turn in _marked(t)]
    rows = np.stack([row for row, _, _ in told])
    mean, scale = rows.mean(axis=0), _scale(rows)
    x = torch.from_numpy((rows - mean) / scale)
    y = torch.tensor([SCENES.index(scene) for _, scene, _ in told])
    forbidden = torch.zeros(len(told), len(SCENES), dtype=torch.float64)
    forbidden[[level not in CLOSE for _, _, level in told], _ROMANTIC] = -torch.inf
    weighs = 1 / torch.bincount(y, minlength=len(SCENES)).double()
    weights = torch.zeros(len(SCENES), x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(SCENES), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weights.T + bias + forbidden, y, weighs)
        loss = loss + penalty * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    plain = weights.detach().numpy() / scale
    return SceneClassifier(plain, bias.detach().numpy() - plain @ mean)


def cross_validated(talks: Sequence[Talk], penalty: float = PENALTY, folds: int = FOLDS) -> float:
    """Share of marked turns told rightly, each by a classifier that was taught the other folds' talks."""
    right = []
    for fold in range(folds):
        classifier = train([t for i, t in enumerate(talks) if i % folds != fold], penalty)
        for talk in talks[fold::folds]:
            judged = classifier.judge(talk.said, talk.affection_level)
            right += [j.scene == t.scene for j, t in zip(judged, talk.turns, strict=True) if t.scene]
    return sum(right) / len(right)


def digest(talks: Sequence[Talk]) -> str:
    """SHA-256 of what is learned from, in hexadecimal."""
    return sha256_json([talk.model_dump() for talk in talks])


def _marked(talk: Talk) -> list[tuple[np.ndarray, Turn]]:
    rows = features(talk.said, talk.affection_level)
    return [(row, turn) for row, turn in zip(rows, talk.turns, strict=True) if turn.scene]


def _scale(rows: np.ndarray) -> np.ndarray:
    """One number for all of an embedding, so that it keeps its shape; each of the told features has its own."""
    scale = rows.std(axis=0)
    width = (rows.shape[1] - TOLD) // 2
    scale[:-TOLD] = np.repeat([scale[:width].mean(), scale[width:-TOLD].mean()], width)
    return scale


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    TALKS = read_talks(TRAINING)
    _log.info("cross-validated: %.3f of the turns are told rightly", cross_validated(TALKS))
    TAUGHT = train(TALKS)
    with whole_file(WEIGHTS) as PART:
        state = {"weights": TAUGHT.weights.astype(np.float32), "bias": TAUGHT.bias.astype(np.float32)}
        save_file(state, PART, metadata={"training": digest(TALKS)})
