"""The words of a Japanese text that carry its content, in their dictionary form.

In: a text. Out: nouns, verbs, adjectives and names, without those that any talk holds, and which of them are denied.
MeCab with unidic-lite.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

_KEPT = ("名詞", "動詞", "形容詞", "形状詞")
_LEFT_OUT = {"代名詞", "非自立可能", "助数詞可能", "数詞"}
_NOT, _REACH = ("無い", "ない", "ず", "ぬ"), 4
_NUMBER = re.compile(r"[0-9〇一二三四五六七八九十百千万]+")
_EVERYWHERE = frozenset(
    [
        *(
            "する",
            "為る",
            "居る",
            "有る",
            "成る",
            "言う",
            "思う",
            "見る",
            "来る",
            "行く",
            "呉れる",
            "無い",
            "良い",
            "感じ",
        ),
        *(
            "事",
            "物",
            "人",
            "時",
            "所",
            "方",
            "今",
            "今日",
            "明日",
            "昨日",
            "前",
            "後",
            "中",
            "何",
            "様",
            "話",
            "気",
            "感じ",
        ),
    ]
)


@cache
def _tagger():
    import MeCab
    import unidic_lite

    return MeCab.Tagger(f'-r "{unidic_lite.DICDIR}/mecabrc" -d "{unidic_lite.DICDIR}"')


def _words(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """(as written, dictionary form, parts of speech) of each word."""
    for line in _tagger().parse(text).splitlines():
        surface, _, rest = line.partition("\t")
        columns = rest.split("\t")
        if len(columns) >= 4:
            yield surface, columns[2].partition("-")[0], columns[3].split("-")


def _carried(surface: str, lemma: str, kind: Sequence[str]) -> str | None:
    """The content word, or None; a name's dictionary form is its reading."""
    if kind[0] not in _KEPT or _LEFT_OUT & set(kind) or lemma in _EVERYWHERE:
        return None
    return surface if "固有名詞" in kind else lemma


def content(text: str) -> set[str]:
    """The content words of `text`, and its numbers, each whole."""
    found = set(_NUMBER.findall(unicodedata.normalize("NFKC", text)))
    return found | {word for one in _words(text) if (word := _carried(*one))}


def affirmed(text: str) -> dict[str, set[bool]]:
    """Content word → whether it is affirmed (True), denied (False: ない or ず soon follows in its clause), or both."""
    words, found = list(_words(text)), {}
    for place, one in enumerate(words):
        if word := _carried(*one):
            found.setdefault(word, set()).add(not _denied(words[place + 1 : place + 1 + _REACH]))
    return found


def _denied(following: Sequence[tuple[str, str, list[str]]]) -> bool:
    for _, lemma, kind in following:
        if lemma in _NOT:
            return True
        if kind[0] in ("補助記号", "名詞") or kind[:2] == ["動詞", "一般"]:
            return False
    return False
