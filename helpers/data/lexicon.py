"""What words are in Japanese: by Sudachi's dictionary, and by the lists in words.yaml.

In: a word, or the name of a list. Out: its parts of speech, or the list as a set or as one regular expression.
"""

import re
from functools import cache
from pathlib import Path

import yaml
from sudachipy import Dictionary

SURNAME = "名詞-固有名詞-人名-姓"


@cache
def words(name: str) -> frozenset[str]:
    """A list of words.yaml."""
    return frozenset(_lists()[name])


@cache
def any_of(*names: str) -> str:
    """One pattern that matches any entry of the lists, longer ones first; entries may be patterns themselves."""
    entries = {entry for name in names for entry in _lists()[name]}
    return "(?:" + "|".join(sorted(entries, key=lambda entry: (-len(entry), entry))) + ")"


@cache
def kinds(word: str) -> frozenset[str]:
    """The parts of speech under which the dictionary has `word`, joined by hyphens; none if it does not have it."""
    return frozenset("-".join(entry.part_of_speech()[:4]) for entry in _dictionary().lookup(word))


@cache
def readings(word: str) -> frozenset[str]:
    """How the dictionary reads `word` as somebody's name, in katakana."""
    entries = _dictionary().lookup(word)
    return frozenset(entry.reading_form() for entry in entries if "人名" in entry.part_of_speech())


def named(word: str) -> bool:
    """Whether the dictionary has `word` as somebody's name, among other things perhaps."""
    return any("人名" in kind for kind in kinds(word))


def only_a_name(word: str) -> bool:
    """Whether `word` is a name and in everyday use nothing else."""
    if len(word) == 1:
        return word in words("given_one_sign")
    if not named(word):
        return not kinds(word)
    kana = re.fullmatch("[ぁ-んァ-ヴー]+", word)
    return not (kana and any("固有名詞" not in kind for kind in kinds(word)))


def may_be_a_name(word: str) -> bool:
    """Whether `word` is somebody's name, or unknown to the dictionary."""
    unknown = not any(kind.startswith(("名詞", "動詞", "形")) for kind in kinds(word))
    return unknown or named(word) or word in words("given_kana")


@cache
def _dictionary() -> Dictionary:
    return Dictionary(dict="core")


@cache
def _lists() -> dict[str, list[str]]:
    return yaml.safe_load((Path(__file__).parent / "words.yaml").read_text(encoding="utf-8"))
