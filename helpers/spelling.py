"""One spelling for what is written to slip past a reader: し に た い, 氏にたい, タヒにたい, ４にたい.

In: what somebody wrote. Out: `plain` text in one width, without gaps between letters, with disguised words of dying
spelled out; and its `sentences`.
"""

import re
import unicodedata

_LETTER = "[ぁ-んァ-ヶー一-龥々0-9]"
# At least three single letters, each two with the same kind of gap between them: し に た い, 死/に/た/い
_GAPS = re.compile(rf"(?<!{_LETTER}){_LETTER}(?:[ ・.,、_*/|~〜…\-]+{_LETTER}){{2,}}(?!{_LETTER})")
_GAP = re.compile(r"[ ・.,、_*/|~〜…\-]+")
# 氏にたい, 市にたい, 4にたい, タヒりたい; not 彼氏に, 田中氏に, タヒチ, 4に対して
_WANT = r"(?:たい(?!し[てた]|する|へん)|たく(?!さん)|たかっ|てえ|てぇ|てー|そう(?!だん))"
_DISGUISED = (
    (re.compile(r"タヒり(?=たい|たく|そう|てえ|てぇ)"), "死に"),
    (re.compile(r"タヒ(?!チ)(?=[にぬねのんりる])"), "死"),
    (re.compile(rf"(?<![一-龥々])[氏市詩詞](?=に{_WANT}|ぬ(?!り)|のう[。、!?ww…\s]|んだ(?:ほう|方))"), "死"),
    (re.compile(rf"(?<![0-9.])4(?=に{_WANT}|ぬ(?!り)|んだ(?:ほう|方))"), "死"),
    (re.compile(r"(?:シニ|ｼﾆ)(?=タイ|タク|テエ|テー|たい|たく)"), "死に"),
    (re.compile(r"死に(?=タイ)タイ"), "死にたい"),
    (re.compile(r"死に(?=タク)タク"), "死にたく"),
    # in kana alone only where nothing else can be meant: not わたしにたいして, うんどうしにたいいくかん
    (
        re.compile(
            r"(?<![わかなは])しに(?=たい(?:$|[。、!?…ww笑\s]|です|と(?!い)|って|よ|な|ね|わ|けど|から|くら|気))"
        ),
        "死に",
    ),
    (re.compile(r"(?<![わかなは])しに(?=てえ|てぇ|たくな(?:る|った|って))"), "死に"),
)
_SENTENCE = re.compile(r"[^。!?\n]*[。!?\n]*")


def plain(text: str) -> str:
    """`text` in one width and in lower case, without invisible signs and gaps between letters, disguises undone."""
    text = re.sub(r"\.{2,}", "…", unicodedata.normalize("NFKC", text).lower())
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Mn", "Me", "Cc") or c == "\n")
    text = _GAPS.sub(lambda found: _GAP.sub("", found.group()), text)
    for pattern, word in _DISGUISED:
        text = pattern.sub(word, text)
    return text


def sentences(text: str) -> list[str]:
    """The sentences of a `plain` text, each with the signs that end it."""
    return [part for found in _SENTENCE.finditer(text) if (part := found.group().strip())]
