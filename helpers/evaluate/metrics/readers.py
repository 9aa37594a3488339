"""Small readers of her replies, taught on what was written by hand: whose words they are and how close the two are,
whether a reply takes up a feeling, how usual its letters are.

In: the persona's dialogues, counterfactual sets and preference pairs. Out: `Readers`, in some seconds, without a file
of weights. They see runs of one to three letters, so they hear the voice of a reply, not whether it is true or fits
what was said. The arms learn from the same files: that an arm sounds like them flatters it beside one that never read
them, and says nothing between two that did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.sparse import vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline

from helpers.conversations import Conversation, read_conversations
from helpers.data.augmentation import expand_all, read_counterfactuals
from helpers.evaluate.metrics.letter_model import LetterModel
from helpers.japanese import japanese_share
from helpers.jsonl import find_files, read_records, sort_out
from helpers.persona import LEVELS, Level, PersonaCard
from helpers.train.preferences import PreferencePair

_OTHERS = len(LEVELS)  # the class of words that are not hers
_WEIGHT = 3  # how often a rejected reply counts: there are few, and they are near to hers
_FOLDS = 5
_KEPT_BACK = 8  # every so manieth dialogue
_UNSEEN = 200  # replies
LEARNED = (
    "dialogues",
    "preferences",
    "counterfactuals",
)  # folders that `teach` takes, as settings name them
COLD = ("ignores_feeling", "mechanical", "preachy")  # faults of a reply that leaves a feeling aside


def _letters() -> TfidfVectorizer:
    return TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)


@dataclass(frozen=True)
class Accuracy:
    """How well the level is read in replies that were not learned from, cross-validated by dialogue: of six levels,
    within one level, and of three groups of two."""

    exact: float
    within_one: float
    group: float
    replies: int


class VoiceReader:
    """Reads at which level she speaks, or that the words are not hers: the user's, or a rejected reply's."""

    def __init__(self, conversations: Sequence[Conversation], pairs: Sequence[PreferencePair]):
        hers = [(reply, LEVELS.index(c.metadata.affection_level), c.id) for c in conversations for reply in c.replies]
        hers += [(p.chosen, LEVELS.index(p.metadata.affection_level), f"pair {p.id}") for p in pairs]
        theirs = [m.content for c in conversations for m in c.messages if m.role == "user"]
        theirs += [p.rejected for p in pairs for _ in range(_WEIGHT)]
        self._texts = [text for text, *_ in hers] + theirs
        self._labels = np.array([level for _, level, _ in hers] + [_OTHERS] * len(theirs))
        self._groups = [name for *_, name in hers] + [f"not hers {n}" for n in range(len(theirs))]
        self._model = self._fresh().fit(self._texts, self._labels)

    @staticmethod
    def _fresh() -> Pipeline:
        return make_pipeline(_letters(), MultinomialNB(alpha=0.3, fit_prior=False))

    def hers(self, texts: Sequence[str]) -> np.ndarray:
        """For each text the probability that the words are hers; at most the share of its letters that is Japanese, for
        the reader was shown hardly any others."""
        return self._capped(self._model.predict_proba(texts), texts)

    @staticmethod
    def _capped(odds: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        return np.minimum(1 - odds[:, _OTHERS], [japanese_share(text) for text in texts])

    def fits(self, texts: Sequence[str], level: Level) -> np.ndarray:
        """For each text how well it fits `level`, 0 to 1: among her levels the probability of this one, and a quarter
        of its neighbours', times the root of the probability that the words are hers."""
        odds, place = self._model.predict_proba(texts), LEVELS.index(level)
        hers = odds[:, :_OTHERS]
        hers = hers / hers.sum(axis=1, keepdims=True)
        near = [hers[:, n] for n in (place - 1, place + 1) if 0 <= n < _OTHERS]
        return (hers[:, place] + sum(near) / 4) * np.sqrt(self._capped(odds, texts))

    @cached_property
    def accuracy(self) -> Accuracy:
        """Measured on the replies that it was taught, each read by a reader that was not taught its dialogue."""
        folds = GroupKFold(_FOLDS)
        odds = cross_val_predict(
            self._fresh(), self._texts, self._labels, groups=self._groups, cv=folds, method="predict_proba"
        )
        hers = self._labels < _OTHERS
        said, read = self._labels[hers], odds[hers][:, :_OTHERS].argmax(axis=1)
        off = np.abs(said - read)
        return Accuracy(
            float((off == 0).mean()), float((off <= 1).mean()), float((said // 2 == read // 2).mean()), int(hers.sum())
        )


class PairReader:
    """Reads which of two replies is the better, from (better, worse) pairs: a logistic regression on the difference of
    their letters."""

    def __init__(self, pairs: Sequence[tuple[str, str]]):
        self._letters = _letters().fit([text for pair in pairs for text in pair])
        better, worse = (self._letters.transform(side) for side in zip(*pairs, strict=True))
        differences = vstack([better - worse, worse - better])
        first = [1] * len(pairs) + [0] * len(pairs)
        self._weights = LogisticRegression(C=10, fit_intercept=False, max_iter=500).fit(differences, first).coef_[0]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """For each text, 0 to 1: how much it is like the better ones."""
        return 1 / (1 + np.exp(-(self._letters.transform(texts) @ self._weights)))


@dataclass(frozen=True)
class Readers:
    """`voice` hears her and the level, `feeling` whether a reply stays with a feeling, `liked` what was preferred;
    `letters` knows how her talks are spelled, both sides; `unseen` are replies of hers that it was not taught."""

    voice: VoiceReader
    feeling: PairReader
    liked: PairReader
    letters: LetterModel
    unseen: tuple[str, ...]


def read_pairs(folder: Path) -> list[PreferencePair]:
    """The preference pairs of a folder that can be used."""
    pairs, _ = sort_out(
        read_records(find_files(folder, "preference pairs"), lambda value, _: PreferencePair.model_validate(value))
    )
    return pairs


def teach(card: PersonaCard, dialogues: Path, preferences: Path, counterfactuals: Path) -> Readers:
    """Readers taught on folders of the persona's dialogues, preference pairs, and counterfactual sets, from which the
    voice learns what a level changes in the answer to the same words.

    Raises:
        FileNotFoundError: a folder holds no such file.
        ValueError: none of the pairs shows a reply that leaves a feeling aside.
    """
    pairs = read_pairs(preferences)
    cold = [pair for pair in pairs if pair.fault in COLD]
    if not cold:
        raise ValueError(
            f"{preferences.name} holds no preference pair whose fault is one of {', '.join(COLD)}: add some, from "
            "which the evaluation learns what it is to take up a feeling."
        )
    conversations = read_conversations(dialogues).conversations
    feeling, liked = (PairReader([(p.chosen, p.rejected) for p in some]) for some in (cold, pairs))
    unseen = conversations[::_KEPT_BACK]
    read = [c for n, c in enumerate(conversations) if n % _KEPT_BACK]
    letters = LetterModel([m.content for c in read for m in c.messages] + [p.chosen for p in pairs])
    replies = tuple(reply for c in unseen for reply in c.replies)[:_UNSEEN]
    alternatives = expand_all(read_counterfactuals(counterfactuals, card).sets)
    return Readers(VoiceReader([*conversations, *alternatives], pairs), feeling, liked, letters, replies)
