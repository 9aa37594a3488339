"""Texts that say nearly the same, by their letters.

In: texts by name. Out: pairs that are alike, found by MinHash (datasketch; Broder 1997, "On the resemblance and
containment of documents") and then compared in full.
`sketch` and `candidates` do the finding for any number of texts; `corpus` calls them piece by piece.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasketch import MinHash

from helpers.conversations import Conversation
from helpers.japanese import bare

SHINGLE = 4  # characters
SIGNATURE = 128  # hash values of a MinHash
_DOUBT = 0.15  # more than three standard errors of a similarity of 0.5 that 128 hash values estimate
_MIXERS = np.random.default_rng(0).integers(1, 2**63, SIGNATURE, dtype=np.uint64) | np.uint64(1)
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
    bands, signatures = zip(*(sketch(s, threshold) for s in sets), strict=True)
    found = []
    for a, b in candidates(np.stack(bands, axis=1), np.stack(signatures), threshold):
        if (similarity := jaccard(sets[a], sets[b])) >= threshold:
            found.append(Alike(names[a], names[b], round(similarity, 3)))
    return sorted(found, key=lambda pair: -pair.similarity)


def repeats(talks: Sequence[Conversation], known: Sequence[Conversation] = ()) -> dict[str, Alike]:
    """By id, those of `talks` that are like one of `known` or like an earlier one that stays, each with that pair."""
    texts = {talk.id: "\n".join(message.content for message in talk.messages) for talk in (*known, *talks)}
    place, stays = {name: number for number, name in enumerate(texts)}, {talk.id for talk in known}
    gone: dict[str, Alike] = {}
    for pair in sorted(near_duplicates(texts), key=lambda pair: place[pair.b]):
        if pair.a not in gone and pair.b not in stays:
            gone.setdefault(pair.b, pair)
    return gone


def shingles(text: str) -> frozenset[str]:
    """The runs of `SHINGLE` letters in `text`."""
    return frozenset(runs(text, SHINGLE))


def runs(text: str, length: int) -> list[str]:
    """Every run of `length` letters in `text`; of a shorter text the whole."""
    letters = bare(text).casefold()
    return [letters[i : i + length] for i in range(max(1, len(letters) - length + 1))]


def sketch(shingled: frozenset[str], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """A MinHash of a set: a 64-bit number for each band, of which two sets as alike as `threshold` share one; and a
    signature of `SIGNATURE` bytes, of which two sets share as large a part as they are alike."""
    minhash = MinHash(num_perm=SIGNATURE)
    minhash.update_batch([s.encode() for s in shingled])
    rows = _rows(threshold)
    used = SIGNATURE // rows * rows
    bands = (minhash.hashvalues[:used] * _MIXERS[:used]).reshape(-1, rows).sum(axis=1, dtype=np.uint64)
    return bands, minhash.hashvalues.astype(np.uint8)


def candidates(bands: Iterable[np.ndarray], signatures: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Pairs (a, b), a before b, of texts that share a number in one of `bands` (each has a number for every text) and
    whose `signatures` (texts × SIGNATURE) let them be as alike as `threshold`.

    One band is looked at at a time, so that memory grows with the pairs and not with bands × texts.
    """
    pairs: set[tuple[int, int]] = set()
    for band in bands:
        pairs.update(equal(band))
    both = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    estimate = (signatures[both[:, 0]] == signatures[both[:, 1]]).mean(axis=1)
    return [(a, b) for a, b in both[estimate >= threshold - _DOUBT].tolist()]


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """What two sets share over what they hold together; 0 for two empty ones."""
    return len(a & b) / len(a | b) if a or b else 0.0


def equal(band: np.ndarray) -> Iterator[tuple[int, int]]:
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
    return next(r for r in range(8, 0, -1) if r == 1 or 1 - (1 - threshold**r) ** (SIGNATURE // r) >= 0.85)
