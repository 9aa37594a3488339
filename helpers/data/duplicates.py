"""Texts that say nearly the same, and passages that stand on both sides of a split.

In: texts by name. Out: pairs that are alike, found by MinHash (datasketch; Broder 1997, "On the resemblance and
containment of documents") and then compared in full; and passages of a held-out text that training texts hold too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datasketch import MinHash, MinHashLSH

from helpers.japanese import bare

SHINGLE = 4  # characters
_PERMUTATIONS = 128


@dataclass(frozen=True)
class Alike:
    """Two texts by name, and the Jaccard similarity of their shingles, 0 to 1."""

    a: str
    b: str
    similarity: float


def near_duplicates(texts: Mapping[str, str], threshold: float = 0.5) -> list[Alike]:
    """Pairs of texts whose shingles of `SHINGLE` letters are at least as similar as `threshold`, most alike first.

    Width, case, white space and punctuation do not count. A text with fewer letters than a shingle is compared whole.
    """
    index = MinHashLSH(threshold=max(0.1, threshold - 0.1), num_perm=_PERMUTATIONS)
    shingles: dict[str, frozenset[str]] = {}
    found = []
    for name, text in texts.items():
        shingles[name] = frozenset(_shingles(text, SHINGLE))
        sketch = MinHash(num_perm=_PERMUTATIONS)
        sketch.update_batch([s.encode() for s in shingles[name]])
        for other in index.query(sketch):
            similarity = jaccard(shingles[name], shingles[other])
            if similarity >= threshold:
                found.append(Alike(other, name, round(similarity, 3)))
        index.insert(name, sketch)
    return sorted(found, key=lambda pair: -pair.similarity)


def shared_passages(held_out: Mapping[str, str], training: Iterable[str], length: int = 12) -> dict[str, str]:
    """For each held-out text that has one, a passage of `length` letters that also stands in a training text."""
    seen = {passage for text in training for passage in _shingles(text, length) if len(passage) == length}
    found = {}
    for name, text in held_out.items():
        if passage := next((p for p in _shingles(text, length) if p in seen), None):
            found[name] = passage
    return found


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """What two sets share over what they hold together; 0 for two empty ones."""
    return len(a & b) / len(a | b) if a or b else 0.0


def _shingles(text: str, length: int) -> list[str]:
    letters = bare(text).casefold()
    return [letters[i : i + length] for i in range(max(1, len(letters) - length + 1))]
