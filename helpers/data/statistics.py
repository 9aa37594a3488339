"""Numbers about a set of conversations, for tables and figures.

In: conversations, or their rows of tokens. Out: plain numbers and arrays.
"""

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np
from sacrebleu import sentence_bleu

from helpers.conversations import Conversation
from helpers.data.situations import OTHER, SITUATIONS, situation
from helpers.persona import LEVELS, PersonaCard
from helpers.supervision import Row

_CLAUSE = re.compile(r"[^。、！？!?…〜~\s]+")
_NUMBER = re.compile(r"[0-9]+|[〇一二三四五六七八九十百千]+")


def reply_lengths(conversations: Sequence[Conversation]) -> list[int]:
    """Length of each of the companion's replies, in characters."""
    return [len(reply) for c in conversations for reply in c.replies]


def level_emotion_counts(conversations: Sequence[Conversation], card: PersonaCard) -> np.ndarray:
    """Dialogues by level and leading emotion: an int array, `LEVELS` × (the card's emotions, then none)."""
    columns = [*card.emotions, None]
    counts = np.zeros((len(LEVELS), len(columns)), dtype=int)
    for c in conversations:
        emotion = c.metadata.emotions[0] if c.metadata.emotions else None
        counts[LEVELS.index(c.metadata.affection_level), columns.index(emotion)] += 1
    return counts


def tokens_read_and_learned(rows: Sequence[Row]) -> tuple[int, int]:
    """(tokens in all rows, tokens among them that carry loss)."""
    return sum(len(r.input_ids) for r in rows), sum(sum(r.assistant_masks) for r in rows)


def distinct(sequences: Sequence[Sequence[Hashable]], n: int) -> float:
    """Distinct-n: different n-grams over all n-grams, 0 to 1 (Li et al. 2016, arXiv:1510.03055)."""
    grams = [tuple(s[i : i + n]) for s in sequences for i in range(len(s) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str], seed: int, most: int = 300) -> float:
    """Self-BLEU: how well a text is put together from the others, 0 (all different) to 100 (Zhu et al. 2018,
    arXiv:1802.01886). Mean over a seeded sample of at most `most` texts, by characters, with sacrebleu.
    """
    chosen = random.Random(seed).sample(list(texts), min(most, len(texts)))
    scores = [
        sentence_bleu(text, [*chosen[:i], *chosen[i + 1 :]], tokenize="char").score for i, text in enumerate(chosen)
    ]
    return sum(scores) / len(scores)


def coverage(conversations: Sequence[Conversation], card: PersonaCard) -> tuple[list[str], np.ndarray]:
    """(situations, dialogues): an int array, situations × `LEVELS` × the card's emotions, by leading emotion. Listed
    are the situations that occur; each dialogue counts in one."""
    found = [situation(c.metadata.topics) for c in conversations]
    names = [name for name in (*SITUATIONS, OTHER) if name in found]
    emotions = list(card.emotions)
    counts = np.zeros((len(names), len(LEVELS), len(emotions)), dtype=int)
    for c, name in zip(conversations, found, strict=True):
        if c.metadata.emotions:
            place = LEVELS.index(c.metadata.affection_level), emotions.index(c.metadata.emotions[0])
            counts[names.index(name), *place] += 1
    return names, counts


def top_endings(conversations: Sequence[Conversation], characters: int = 4, count: int = 10) -> list[tuple[str, int]]:
    """The commonest ends of her replies, without punctuation and emoji, with how often each occurs."""
    ends = ("".join(c for c in reply if c.isalnum())[-characters:] for conv in conversations for reply in conv.replies)
    return Counter(ends).most_common(count)


def top_openings(conversations: Sequence[Conversation], characters: int = 3, count: int = 10) -> list[tuple[str, int]]:
    """The commonest beginnings of her replies, with how often each occurs."""
    return Counter(reply[:characters] for c in conversations for reply in c.replies).most_common(count)


def echoed_numbers(conversations: Sequence[Conversation], characters: int = 12) -> float:
    """Share of her replies that open with a number which the user has just said, as 三日もですか does: in the clause
    before the first mark, if that has at most `characters`. 3 and 三 are the same; 0 and 1 are none, since 一 is a part
    of many words."""
    replies = echoes = 0
    for c in conversations:
        for said, answer in pairwise(c.messages):
            if answer.role == "assistant":
                replies += 1
                opening = _CLAUSE.search(answer.content)
                short = opening and len(opening[0]) <= characters
                echoes += bool(short and _numbers(said.content) & _numbers(opening[0]))
    return echoes / replies if replies else 0.0


def _numbers(text: str) -> set[str]:
    """The numbers in a text, in kanji without a unit of ten thousand."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text))
    return {_in_kanji(n) if n.isascii() else n for n in found} - {"", "一"}


def _in_kanji(number: str) -> str:
    """19 as 十九."""
    said = ""
    for digit, unit in zip(reversed(number), ("", "十", "百", "千"), strict=False):
        figure = "" if digit == "1" and unit else "〇一二三四五六七八九"[int(digit)]
        said = (figure + unit if digit != "0" else "") + said
    return said


def bigrams(text: str) -> Counter:
    """Character pairs of `text` with their counts."""
    return Counter(map("".join, pairwise(text)))
