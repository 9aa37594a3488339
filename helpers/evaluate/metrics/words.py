"""The words of a Japanese text that carry its content, in their dictionary form.

In: a text. Out: nouns, verbs, adjectives and names, without those that any talk holds. MeCab with unidic-lite.
"""

import re
import unicodedata
from functools import cache

_KEPT = ("名詞", "動詞", "形容詞", "形状詞")
_LEFT_OUT = {"代名詞", "非自立可能", "助数詞可能", "数詞"}
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


def content(text: str) -> set[str]:
    """The content words of `text`, and its numbers, each whole."""
    found = set(_NUMBER.findall(unicodedata.normalize("NFKC", text)))
    for line in _tagger().parse(text).splitlines():
        surface, _, rest = line.partition("\t")
        columns = rest.split("\t")
        if len(columns) < 4:
            continue
        lemma, kind = columns[2].partition("-")[0], columns[3].split("-")
        if kind[0] in _KEPT and not _LEFT_OUT & set(kind) and lemma not in _EVERYWHERE:
            found.add(surface if "固有名詞" in kind else lemma)  # a name's dictionary form is its reading
    return found
