"""Japanese text by its characters: how much of one is Japanese, what is quoted in it, and one spelling for what
is typed in two widths."""

import re
import unicodedata

_JAPANESE = re.compile("[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f]")
# Digits written one by one in kanji, as in a telephone number; ten of them are no word.
_KANJI_NUMBER = re.compile(r"[〇零一二三四五六七八九][〇零一二三四五六七八九ー-]{8,}[〇零一二三四五六七八九]")
# A telephone number of three groups: its first digit is 0 and its second is not, as in no 〇〇〇 for a word left out.
_KANJI_PHONE = re.compile(
    r"[〇零][一二三四五六七八九][〇零一二三四五六七八九]{0,3}"
    r"(?: ?[-ー・の ] ?[〇零一二三四五六七八九]{1,4}){2}"
)
# A character, with the mark of its own that voices a kana: of half-width ones, and as some file systems spell them.
_CHARACTER = re.compile("[ｳｶ-ﾄﾊ-ﾎうか-とは-ほウカ-トハ-ホ][ﾞ\u3099]|[ﾊ-ﾎは-ほハ-ホ][ﾟ\u309a]|.", re.DOTALL)
QUOTED = re.compile(r"「[^」]*」|『[^』]*』|“[^”]*”")
_KANJI_DIGITS = str.maketrans("〇零一二三四五六七八九ー", "00123456789-")


def letters(text: str) -> list[str]:
    """The letters of `text`, of any script."""
    return [c for c in text if unicodedata.category(c).startswith("L")]


def bare(text: str) -> str:
    """`text` in one width, without white space, punctuation and emoji."""
    return "".join(c for c in unicodedata.normalize("NFKC", text) if c.isalnum())


def japanese_share(text: str) -> float:
    """Share of `text`'s letters that are kana or kanji, 0 to 1; 0 if it has no letter."""
    found = letters(text)
    return sum(bool(_JAPANESE.match(c)) for c in found) / len(found) if found else 0.0


def narrow(text: str) -> str:
    """`text` with full-width letters, digits and signs made half-width, half-width kana full-width and all hyphens one.
    Its length is unchanged, but for kana that are written in two characters (ﾍﾞ for ベ)."""
    return narrow_with_places(text)[0]


def narrow_with_places(text: str) -> tuple[str, list[int]]:
    """`narrow`, and where in `text` each of its characters stood; behind them, the length of `text`."""
    read = [(_narrowed(found.group()), found.start()) for found in _CHARACTER.finditer(text)]
    narrowed = "".join(c for c, _ in read)
    # The long vowel mark between digits is a hyphen typed in kana mode.
    narrowed = re.sub(r"(?<=\d)ー(?=\d)", "-", narrowed)
    for pattern in (_KANJI_NUMBER, _KANJI_PHONE):
        narrowed = pattern.sub(lambda found: found.group().translate(_KANJI_DIGITS), narrowed)
    return narrowed, [*(start for _, start in read), len(text)]


def _narrowed(character: str) -> str:
    if character in "‐‑‒–—―−":
        return "-"
    forms = (unicodedata.normalize("NFKC", character), unicodedata.normalize("NFKC", character[0]), character[0])
    return next(form for form in forms if len(form) == 1)
