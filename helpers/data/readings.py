"""How a name is read: what 三浦, みうら, ミウラ and Miura have in common.

In: a name, or a part of one. Out: its readings in katakana. A name in kanji has those that the dictionary knows; one in
Latin letters is read as romaji, in which long vowels are often left out (Sato for サトウ).
"""

import re
import unicodedata

from helpers.data import lexicon

_VOWELS = "aiueo"
_ROWS = {
    "": "アイウエオ", "k": "カキクケコ", "g": "ガギグゲゴ", "s": "サシスセソ", "z": "ザジズゼゾ", "t": "タチツテト",
    "d": "ダヂヅデド", "n": "ナニヌネノ", "h": "ハヒフヘホ", "b": "バビブベボ", "p": "パピプペポ", "m": "マミムメモ",
    "r": "ラリルレロ",
}  # fmt: skip
_KANA = {on + vowel: kana for on, row in _ROWS.items() for vowel, kana in zip(_VOWELS, row, strict=True)}
_KANA |= {"ya": "ヤ", "yu": "ユ", "yo": "ヨ", "wa": "ワ", "wo": "ヲ", "fu": "フ", "tsu": "ツ"}
_KANA |= {"shi": "シ", "chi": "チ", "ji": "ジ", "she": "シェ", "che": "チェ", "je": "ジェ"}
_KANA |= {f"f{v}": f"フ{small}" for v, small in zip("aieo", "ァィェォ", strict=True)}
_GLIDES = {f"{on}y": row[1] for on, row in _ROWS.items() if on in "kgnhbpmr" and on}
_GLIDES |= {"sh": "シ", "sy": "シ", "ch": "チ", "ty": "チ", "j": "ジ", "jy": "ジ", "zy": "ジ"}
_KANA |= {on + v: row + small for on, row in _GLIDES.items() for v, small in zip("auo", "ャュョ", strict=True)}
_SYLLABLE = re.compile(
    r"(?P<double>([kgsztdbpcfj])(?=\2)|t(?=ch))|(?P<n>n['-](?=[aiueoy])|n(?![aiueoy'-])|m(?=[bpm]))"
    rf"|(?P<kana>{'|'.join(sorted(_KANA, key=len, reverse=True))})"
)
_MACRONS = (("o\u0304", "ou"), ("u\u0304", "uu"), ("a\u0304", "aa"), ("e\u0304", "ee"), ("i\u0304", "ii"))
_LONG_VOWEL = re.compile(
    "(?<=[オコソトノホモヨロゴゾドボポョォ])[ウオ]|(?<=[ウクスツヌフムユルグズブプュゥ])ウ|(?<=.)ー"
)
_SAME_SOUND = str.maketrans("ヂヅヲ", "ジズオ")


def readings(name: str) -> frozenset[str]:
    """The readings of `name` in katakana; none if it is not known how it is read."""
    text = plain(name)
    if re.fullmatch("[ぁ-ゖァ-ヺー]+", text):
        return frozenset({_katakana(text)})
    if is_latin(text):
        read = _from_romaji(text)
        return frozenset({read} if read else ())
    return frozenset(_katakana(read) for read in lexicon.readings(name))


def plain(name: str) -> str:
    """`name` in one width, and in lower case."""
    return unicodedata.normalize("NFKC", name).casefold()


def is_latin(name: str) -> bool:
    """Whether `name` is written in Latin letters, in either width."""
    return bool(re.fullmatch("[a-zāēīōū.'-]+", plain(name)))


def loosely(reading: str) -> str:
    """What is left of a reading in careless romaji: サト of サトウ, ケニチ of ケンイチ."""
    joined = re.sub("ン([アイウエオ])", lambda found: "ナニヌネノ"["アイウエオ".index(found[1])], reading)
    return _LONG_VOWEL.sub("", joined)


def _katakana(kana: str) -> str:
    return "".join(chr(ord(c) + 0x60) if "ぁ" <= c <= "ゖ" else c for c in kana).translate(_SAME_SOUND)


def _from_romaji(text: str) -> str | None:
    """The reading of a Japanese name in Latin letters, None if it is no such name."""
    text = unicodedata.normalize("NFD", text).replace("\u0302", "\u0304")
    for mark, vowels in _MACRONS:
        text = text.replace(mark, vowels)
    text = re.sub("oh(?![aiueoy])", "ou", text)
    read, at = "", 0
    while at < len(text):
        found = _SYLLABLE.match(text, at)
        if found is None:
            return None
        read += "ッ" if found["double"] else "ン" if found["n"] else _KANA[found["kana"]]
        at = found.end()
    return read.translate(_SAME_SOUND)
