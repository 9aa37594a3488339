"""What words are in Japanese: by Sudachi's dictionary, and by the lists in words.yaml.

In: a word, or the name of a list. Out: its parts of speech, or the list as a set or as one regular expression.
"""

import re
from functools import cache
from pathlib import Path

import yaml
from sudachipy import Dictionary, Tokenizer

SURNAME = "名詞-固有名詞-人名-姓"
_JOINS = ("助詞", "助動詞", "接続詞")
_COPULAS = ("だ", "だっ", "です", "でし", "な", "なら", "らしい", "らしく", "じゃ", "や")


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


def is_place(word: str) -> bool:
    """Whether the dictionary has `word` as a place, with any of the kana that are written in such names: 由比が浜,
    由比ヶ浜, 由比ガ浜."""
    spelled = {word, re.sub("(?<=[一-龥々])[がガケヶ](?=[一-龥々])", "ヶ", word)}
    return any("地名" in kind for one in spelled for kind in kinds(one))


def is_common(word: str) -> bool:
    """Whether the dictionary has `word` as something else than a name."""
    return any("固有名詞" not in kind for kind in kinds(word))


@cache
def is_glue(kana: str) -> bool:
    """Whether hiragana join words and name nothing: にある, っていう, でした."""
    if not re.fullmatch("[ぁ-ん]+", kana) or (len(kana) > 2 and any("固有名詞" in kind for kind in kinds(kana))):
        return False
    (first, its_part), *_ = words = _cut(kana)
    if its_part not in _JOINS or (its_part == "助動詞" and first not in _COPULAS):
        return False
    says = (*_JOINS, "動詞", "形容詞", "副詞", "連体詞")
    return all(part in says for _, part in words) or words[-1][1] in _JOINS


@cache
def up_to_glue(kana: str) -> str:
    """What of hiragana in a name, or behind it, can be of it: ひろば of ひろばでした; nothing of っていう, つぶれた."""
    words = _cut(kana)
    for n, (word, part) in enumerate(words):
        if (part in _JOINS and (word != "の" or n == len(words) - 1)) or word in ("さん", "なん"):
            said = n and words[n - 1][1] in ("動詞", "形容詞") and (part == "助動詞" or word in ("て", "で", "ば"))
            return "" if said else "".join(word for word, _ in words[:n])
    return kana


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
def _cut(text: str) -> list[tuple[str, str]]:
    """The words of `text`, each with its part of speech."""
    return [(word.surface(), word.part_of_speech()[0]) for word in _tokenizer().tokenize(text)]


@cache
def _tokenizer() -> Tokenizer:
    return _dictionary().create()


@cache
def _lists() -> dict[str, list[str]]:
    return yaml.safe_load((Path(__file__).parent / "words.yaml").read_text(encoding="utf-8"))
