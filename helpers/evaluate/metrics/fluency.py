"""Fluency: whether the reply is Japanese in whole sentences, and does not repeat itself.

In: a reply. Out: the product of its parts: Japanese letters · character 4-grams that are no repetition · distinct
character 2-grams · it does not end in the middle of a sentence · how little it surprises a language model. That is the
letter model, which was taught on her own dialogues and knows her way of speaking; by parameter a larger one that was
not tuned. Whether she stopped is `stops`'s matter: of a reply that the limit cut, the whole sentences are read.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from helpers.evaluate.metrics.language_model import LanguageModel
from helpers.evaluate.metrics.letter_model import LetterModel
from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.japanese import letters
from helpers.persona_rules import EMOJI, has_words
from helpers.replies import Reply

SURPRISED = 2.0  # standard deviations above her own replies at which a reply is worth half
_STEEPNESS = 1.0
_KANA = re.compile("[\u3040-\u30ff\uff66-\uff9f々〆]")
_CLOSED = re.compile(r"[。．！!？?…♪♡☆～〜ー」』）)ｗw笑]\s*$")
_WHOLE = re.compile(r".*[。．！!？?…♪♡☆][」』）)]?", re.DOTALL)
_OPEN_ENDS = r"(?:[はがをにへ]|って|ので|のに|けれど|たら|なら|ても|でも|その|この|あの|とか|まで|より|から、|、)$"
_FINISHED = re.compile(
    r"(?:です|ます|ました|ません|でした|だ|た|る|い|う|く|ぐ|す|つ|ぬ|ぶ|む|よ|ね|な|の|か|さ|わ|ぞ|ぜ|もん|けど|し|から|じゃん|でしょ|かも|ん)$"
)


def native(text: str, user_turns: Sequence[str] = ()) -> float:
    """Share of the letters that Japanese is written in: kana, and kanji of Shift JIS, which has no Chinese simplified
    ones. Latin words that the user wrote too, and abbreviations, do not count."""
    said = unicodedata.normalize("NFKC", " ".join(user_turns)).lower()
    kept = re.sub(r"[A-Za-zＡ-Ｚａ-ｚ]+", lambda m: "" if _excused(m.group(), said) else m.group(), text)
    found = letters(kept)
    return sum(_japanese(c) for c in found) / len(found) if found else 0.0


def _excused(word: str, said: str) -> bool:
    word = unicodedata.normalize("NFKC", word)
    return word.isupper() or word.lower() in said


def _japanese(letter: str) -> bool:
    if _KANA.match(letter):
        return True
    try:
        return unicodedata.name(letter, "").startswith("CJK UNIFIED") and bool(letter.encode("cp932"))
    except UnicodeEncodeError:
        return False


def repetition(text: str, n: int = 4) -> float:
    """Share of character n-grams that were there before in `text`, 0 to 1."""
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def finished(text: str) -> bool:
    """Whether the last sentence is whole, by its last letters."""
    bare = EMOJI.sub("", text).rstrip()
    return bool(_CLOSED.search(bare) or EMOJI.search(text[-3:]) or _FINISHED.search(bare)) and not re.search(
        _OPEN_ENDS, bare
    )


def heard(reply: Reply) -> str:
    """What is read of a reply: all of it; if the limit cut it, up to its last whole sentence. Where no sentence came to
    its end within the limit, all of it too."""
    whole = None if reply.stopped else _WHOLE.match(reply.text)
    return whole.group() if whole else reply.text


def parts(dialogue: Dialogue, turn: int) -> dict[str, float]:
    """The parts that need no model, each 0 to 1. How a reply would have ended that was cut, nobody knows: it is not
    held against it."""
    reply = dialogue.replies[turn]
    text = heard(reply)
    return {
        "japanese": native(text, dialogue.user_turns[: turn + 1]),
        "no repetition": 1 - repetition(text),
        "distinct": 1 - repetition(text, 2),
        "whole": float(finished(text) or not reply.stopped),
    }


def unsurprising(texts: Sequence[str], own: Sequence[str], model: LanguageModel | LetterModel) -> np.ndarray:
    """For each text how little it surprises `model`, 0 to 1: 0.5 at `SURPRISED` standard deviations above `own`."""
    usual = model.surprise(own)
    above = (model.surprise(texts) - usual.mean()) / usual.std()
    return 1 / (1 + np.exp(_STEEPNESS * (above - SURPRISED)))


def all_parts(dialogues: Sequence[Dialogue], tools: Tools) -> list[list[dict[str, float]]]:
    """For each reply its parts, 0 to 1, of which `values` is the product: those of `parts`, and what the model says."""
    texts = [heard(reply) for d in dialogues for reply in d.replies]
    model = tools.language_model or tools.readers.letters
    easy = iter(unsurprising(texts, tools.readers.unseen, model) if texts else ())
    return [[parts(d, n) | {"unsurprising": float(next(easy))} for n in range(len(d.replies))] for d in dialogues]


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """For each reply the product of its parts; a reply without words is worth 0."""
    return [
        [float(np.prod([*each.values()])) if has_words(text) else 0.0 for each, text in zip(row, d.texts, strict=True)]
        for row, d in zip(all_parts(dialogues, tools), dialogues, strict=True)
    ]


METRIC = Metric(
    "fluency",
    "fluency",
    "well-formed Japanese in whole sentences that does not go in circles",
    "0 to 1; a reply of hers is near 0.7, for Japanese repeats its syllables",
    "rare words and dialect pass for faults, nonsense in well-formed sentences does not; the letter model knows her "
    "own dialogues, and her way of speaking surprises it less than another's",
    values,
)
