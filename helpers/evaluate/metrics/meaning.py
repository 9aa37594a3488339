"""Meaning by example: whether a text says what one set of sentences says, or what another does.

In: a text, two sets of example sentences. Out: 0 to 1 by embeddings; other words for the same are near, which set
phrases miss.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from helpers.embeddings import embed
from helpers.persona_rules import has_words

SOFT = 0.02  # of cosine: a text so much nearer is worth about three in four


@lru_cache(maxsize=20_000)  # examples, contexts and what a server says alike to every arm
def _vector(text: str) -> np.ndarray:
    return embed([text])[0]


def vectors(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors (texts × 384)."""
    return np.stack([_vector(text) for text in texts])


def share(ahead: float | np.ndarray, soft: float = SOFT) -> float | np.ndarray:
    """A lead in cosine as 0 to 1: 0.5 for none."""
    return 1 / (1 + np.exp(-ahead / soft))


def nearer(text: str, these: Sequence[str], those: Sequence[str]) -> float:
    """How much nearer the sentences of `text` are on average to the nearest of `these` than to that of `those`, 0 to 1;
    0.5 for as near, and for a text without words."""
    sentences = [s for s in re.split(r"(?<=[。！？!?…])", text) if has_words(s)]
    if not sentences:
        return 0.5
    read = vectors(sentences)
    lead = (read @ vectors(these).T).max(axis=1) - (read @ vectors(those).T).max(axis=1)
    return float(share(lead.mean()))
