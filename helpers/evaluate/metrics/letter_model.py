"""A language model of letters, small enough to be taught in seconds: how usual is this run of letters in Japanese?

In: texts by people. Out: how surprised it is by other texts, in nats a letter. It interpolates runs of up to four
letters.
Source: Witten & Bell, IEEE Transactions on Information Theory 37, 1991.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

_ORDER = 4
_LETTERS = 6000  # that Japanese is written in, more or less: the chance of a letter that was never seen
_BEGIN, _END = "\x02", "\x03"


class LetterModel:
    """Taught once; a text ends with a sign of its own, so that one that breaks off is a surprise."""

    def __init__(self, texts: Iterable[str]):
        self._seen: Counter[str] = Counter()  # run of letters
        self._followed: Counter[str] = Counter()  # beginning of a run: how often it was followed
        self._kinds: Counter[str] = Counter()  # by how many different letters
        for text in texts:
            for before, letter in _runs(text):
                for n in range(_ORDER):
                    begin = before[_ORDER - 1 - n :]
                    self._kinds[begin] += begin + letter not in self._seen
                    self._seen[begin + letter] += 1
                    self._followed[begin] += 1

    def surprise(self, texts: Sequence[str]) -> np.ndarray:
        """Nats a letter of each text."""
        return np.array([np.mean([-np.log(self._chance(*run)) for run in _runs(text)]) for text in texts])

    def _chance(self, before: str, letter: str) -> float:
        chance = 1 / _LETTERS
        for n in range(_ORDER):
            begin = before[_ORDER - 1 - n :]
            if not (often := self._followed[begin]):
                break
            trust = often / (often + self._kinds[begin])
            chance = trust * self._seen[begin + letter] / often + (1 - trust) * chance
        return chance


def _runs(text: str) -> list[tuple[str, str]]:
    """(the letters before, letter) for each letter of the text and its end."""
    marked = _BEGIN * (_ORDER - 1) + text + _END
    return [(marked[i - _ORDER + 1 : i], marked[i]) for i in range(_ORDER - 1, len(marked))]
