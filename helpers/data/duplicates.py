"""Texts that say nearly the same, by their letters.

In: texts by name. Out: pairs that are alike, found by MinHash (datasketch; Broder 1997, "On the resemblance and
containment of documents") and then compared in full.
`sketch` and `candidates` do the finding for any number of texts; `corpus` calls them piece by piece.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from datasketch import MinHash

from helpers.japanese import bare

SHINGLE = 4  # characters
_PERMUTATIONS = 128
_MIXERS = np.random.default_rng(0).integers(1, 2**63, _PERMUTATIONS, dtype=np.uint64) | np.uint64(1)
_NEIGHBOURS = 20  # of a text among those that share a band with it


@dataclass(frozen=True)
class Alike:
    """Two texts by name, and the Jaccard similarity of their shingles, 0 to 1."""

    a: str
    b: str
    similarity: float


def near_duplicates(texts: Mapping[str, str], threshold: float = 0.5) -> list[Alike]:
    """Pairs of texts whose shingles of `SHINGLE` letters are at least as similar as `threshold`, most alike first.

    Width, case, white space and punctuation do not count. A text with fewer letters than a shingle is compared whole.
    A pair just as alike as `threshold` is found nine times in ten, a pair 0.1 more alike nearly always.
    """
    if len(texts) < 2:
        return []
    names, sets = list(texts), [shingles(text) for text in texts.values()]
    bands = np.stack([sketch(s, threshold) for s in sets], axis=1)
    found = []
    for a, b in candidates(bands):
        if (similarity := jaccard(sets[a], sets[b])) >= threshold:
            found.append(Alike(names[a], names[b], round(similarity, 3)))
    return sorted(found, key=lambda pair: -pair.similarity)


def shingles(text: str) -> frozenset[str]:
    """The runs of `SHINGLE` letters in `text`."""
    return frozenset(runs(text, SHINGLE))


def runs(text: str, length: int) -> list[str]:
    """Every run of `length` letters in `text`; of a shorter text the whole."""
    letters = bare(text).casefold()
    return [letters[i : i + length] for i in range(max(1, len(letters) - length + 1))]


def sketch(shingled: frozenset[str], threshold: float) -> np.ndarray:
    """A MinHash of a set, as one 64-bit number for each band: two sets as alike as `threshold` share one of them."""
    minhash = MinHash(num_perm=_PERMUTATIONS)
    minhash.update_batch([s.encode() for s in shingled])
    rows = _rows(threshold)
    used = _PERMUTATIONS // rows * rows
    return (minhash.hashvalues[:used] * _MIXERS[:used]).reshape(-1, rows).sum(axis=1, dtype=np.uint64)


def candidates(bands: Iterable[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs (a, b), a before b, of texts that share a number in one band; each band has a number for every text.

    One band is looked at at a time, so that memory grows with the pairs and not with bands × texts.
    """
    pairs: set[tuple[int, int]] = set()
    for band in bands:
        pairs.update(_equal(band))
    return sorted(pairs)


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """What two sets share over what they hold together; 0 for two empty ones."""
    return len(a & b) / len(a | b) if a or b else 0.0


def _equal(band: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of places with the same number; of many, each with the first and with its neighbours."""
    order = np.argsort(band, kind="stable")
    starts = np.flatnonzero(np.diff(band[order], prepend=~band[order[:1]]))
    lengths = np.diff(starts, append=len(order))
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        run = order[start : start + length].tolist()
        for i in range(1, len(run)):
            yield run[0], run[i]
            for j in range(max(1, i - _NEIGHBOURS), i):
                yield run[j], run[i]


def _rows(threshold: float) -> int:
    """Numbers in a band: as many as still let a pair as alike as `threshold` share a band nine times in ten."""
    return next(r for r in range(8, 0, -1) if r == 1 or 1 - (1 - threshold**r) ** (_PERMUTATIONS // r) >= 0.85)
