"""What a held-out text shares with training texts: words, or what is said in other words.

In: texts by name. Out: for a held-out text the passage that training has too, and its nearest training text by
embeddings. How near is too near is told by the training texts themselves: how near each is to its nearest other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from helpers.data.duplicates import runs
from helpers.data.reserved import PASSAGE
from helpers.embeddings import embed

_BLOCK = 1024  # training texts that are compared with all others at once


@dataclass(frozen=True)
class Near:
    """A held-out text and its nearest training text; the cosine of the two, and the share of training texts that have
    another one at least as near. 0: nearer than any two of them are."""

    held_out: str
    training: str
    cosine: float
    usual: float


def shared_passages(held_out: Mapping[str, str], training: Iterable[str], length: int = PASSAGE) -> dict[str, str]:
    """For each held-out text that has one, a passage of `length` letters that also stands in a training text. Of the
    training texts nothing is kept but what is found, so there may be any number."""
    passages = {name: [p for p in runs(text, length) if len(p) == length] for name, text in held_out.items()}
    wanted = {passage for of_one in passages.values() for passage in of_one}
    seen = {passage for text in training for passage in runs(text, length) if passage in wanted}
    found = {name: next((p for p in of_one if p in seen), None) for name, of_one in passages.items()}
    return {name: passage for name, passage in found.items() if passage}


def nearest(held_out: Mapping[str, str], training: Mapping[str, str]) -> list[Near]:
    """The nearest training text of each held-out one, nearest pairs first. Time grows with the square of the training
    texts, memory with their number.

    Raises:
        ValueError: fewer than two training texts, so there is nothing to compare with.
    """
    if len(training) < 2:
        raise ValueError("Nearness is compared with that of training texts to each other: give at least two.")
    if not held_out:
        return []
    learned, held = embed(training.values()), embed(held_out.values())
    usual, names = _nearest_other(learned), list(training)
    cosines = held @ learned.T
    found = [
        Near(name, names[best], float(row[best]), float((usual >= row[best]).mean()))
        for name, row, best in zip(held_out, cosines, cosines.argmax(axis=1), strict=True)
    ]
    return sorted(found, key=lambda near: -near.cosine)


def _nearest_other(vectors: np.ndarray) -> np.ndarray:
    """For each of `vectors` (texts × dimensions, of length 1) the largest cosine with another one."""
    largest = np.empty(len(vectors), dtype=vectors.dtype)
    for start in range(0, len(vectors), _BLOCK):
        cosines = vectors[start : start + _BLOCK] @ vectors.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -1
        largest[start : start + _BLOCK] = cosines.max(axis=1)
    return largest
