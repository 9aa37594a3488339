"""How much of a text is Japanese."""

import re
import unicodedata

_JAPANESE = re.compile("[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f]")


def letters(text: str) -> list[str]:
    """The letters of `text`, of any script."""
    return [c for c in text if unicodedata.category(c).startswith("L")]


def japanese_share(text: str) -> float:
    """Share of `text`'s letters that are kana or kanji, 0 to 1; 0 if it has no letter."""
    found = letters(text)
    return sum(bool(_JAPANESE.match(c)) for c in found) / len(found) if found else 0.0
