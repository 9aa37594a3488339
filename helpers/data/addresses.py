"""Where a Japanese address begins and ends.

In: a text that went through `japanese.narrow`. Out: the places of the addresses in it. A form finds the numbers
(三丁目15番33号, 1-2-3, 二条上る), the dictionary's names of places tell where before them the address begins, and a
building with its room may follow. What only stands beside it (荷物は, 実家が, に送って) is no part of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from helpers.data.lexicon import is_common, is_glue, is_place, kinds
from helpers.data.people import Place

_KANJI_N = "〇一二三四五六七八九十百"
_N = rf"(?:\d+|[{_KANJI_N}]+)"
_K = "一-龥々ヵヶァ-ヴー"
_NO_COUNT = r"(?![\d円年月日時分人個回点%歳才階本枚匹軒つ])"  # 港区芝2丁目3人 is no number 3
_REST = (
    rf"(?:{_N}番地|\d+(?:番(?!目)|-)|[{_KANJI_N}]+番(?!目))?"
    rf"(?:の?{_N}号(?!線|車)|の?\d+{_NO_COUNT}|(?<=[番地])[{_KANJI_N}]+{_NO_COUNT})?(?:-\d+)*(?:号室)?"
)
_BLOCK = rf"{_N}丁目(?!の夕日|の角|の交差点|のとこ|あたり){_REST}"
_PLOT = rf"{_N}番地(?:の?{_N}{_NO_COUNT})?"


@dataclass(frozen=True)
class _Form:
    """How the numbers of an address are written, and what must stand before them: `parts` counts municipalities and the
    area in them. With `section` one of them is a 字, with `street` a street in Kyoto; with `known` the dictionary has
    the area, or it ends as one does."""

    numbers: re.Pattern
    parts: int = 1
    section: bool = False
    street: bool = False
    known: bool = False


def _form(numbers: str, **needs: int) -> _Form:
    return _Form(re.compile(rf"(?<![\d.-])(?:{numbers})"), **needs)


_FORMS = (
    _form(rf"(?:{_N}条通?り?)?[東西南北]?{_BLOCK}"),
    _form(rf"{_PLOT}"),
    _form(
        rf"(?:\d+番|(?!一番(?![\d{_KANJI_N}の]))[{_KANJI_N}]+番)(?![一-龥])(?:の?{_N}号?{_NO_COUNT})?|\d+(?:-\d+)+",
        parts=2,
    ),
    _form(rf"\d+(?:-\d+)*{_NO_COUNT}", section=True),
    _form(rf"\d+{_NO_COUNT}(?![番丁条-])", parts=3),
    _form(rf"{_N}地割{_N}(?:番地?)?(?:の?{_N})?"),
    _form(r"\d{1,3}-\d{1,3}-\d{1,4}(?:-\d{1,4})?(?![\d-])", known=True),
    _form(rf"(?<=[東西南北]){_N}条[東西南北]{_N}(?:丁目)?{_REST}"),
    _form(
        rf"(?:[上下](?:が?る|ル)|[東西]入(?:[るルり]|(?=[一-龥])(?![学社試])))"
        rf"(?:[東西南北]側|(?:[{_K}]{{1,9}}?(?:町|(?={_N}番)))?(?:{_PLOT}|{_N}番(?!目))?(?:\d+(?:-\d+)*{_NO_COUNT})?)",
        street=True,
    ),
)

_BUILDING = (
    "ハイツ|コーポ|メゾン|マンション|アパート|ハイム|ビル|荘|寮|館|団地|住宅|棟|レジデンス|パレス|ヴィラ|ビラ|タワー|コート|"
    "ハウス|テラス|プラザ|ヒルズ|ガーデン|カーサ|シャトー|倉庫"
)
_ROOM = re.compile(
    rf" ?の?(?:(?!電話|携帯|内線|TEL|FAX|家賃|築|徒歩|定員)(?:[{_K}A-Za-z]{{2,16}}"
    rf"|(?:[ぁ-ん]{{2,6}}|[{_K}A-Za-z]{{1,10}})?(?:{_BUILDING})(?:[ぁ-ん]{{2,6}}|[{_K}A-Za-z]{{1,10}})?) ?"
    rf"(?:\d{{1,2}}(?:階|F)|\d{{1,2}}号室?|[A-Z]?-?\d{{2,4}}(?:号室|号)?(?![\d円年月日時分人個回点%歳才階本枚匹軒つ-]))"
    r"|\d{2,4}号室)"
)

_PREFECTURE = re.compile(
    "北海道|東京都|(?:京都|大阪)府|(?:青森|岩手|宮城|秋田|山形|福島|茨城|栃木|群馬|埼玉|千葉|神奈川|新潟|富山|石川|福井|山梨|長野|岐阜|静岡|愛知|三重|"
    "滋賀|兵庫|奈良|和歌山|鳥取|島根|岡山|広島|山口|徳島|香川|愛媛|高知|福岡|佐賀|長崎|熊本|大分|宮崎|鹿児島|沖縄)県"
)
_STREET = r"\d{1,2}番(?=町|丁)"  # 学校町通1番町
_HEAD = re.compile(rf"(?:[{_K}ぁ-ん]|(?<=[都道府県市区郡町村]) |{_STREET})*\Z")
_NAME = re.compile(rf"(?:[{_K}]|(?<=通)り|{_STREET})+\Z")
_LONGEST = 10  # letters of a place's name
# What stands behind が or の in the name of a place: 霞が関, 丸の内.
_BEHIND = {
    "が": "丘浜台原関谷崎野森池瀬沢峰島岡里久鼻根峠",
    "の": "内丸上下町里森杜宮台浜原口前木葉川沢谷池井頭門庄郷坪山島江瀬本平園街坂",
}
_BEHIND_KANA = "野台丘町浜山ヶケ森里"
_ENDS_AS_A_PLACE = re.compile("[町村丁丘台通筋条]$")


def addresses(text: str) -> Iterator[Place]:
    """Places of addresses, some of them perhaps inside others."""
    for form in _FORMS:
        for numbers in form.numbers.finditer(text):
            head = _HEAD.search(text, max(0, numbers.start() - 40), numbers.start()).group()
            start = _beginning(head, form)
            if start is not None:
                yield numbers.start() - len(head) + start, _with_room(text, numbers.end())


def _with_room(text: str, end: int) -> int:
    room = _ROOM.match(text, end)
    return end if room is None or any(map(is_glue, re.findall("[ぁ-ん]{2,}", room.group()))) else room.end()


def _beginning(head: str, form: _Form) -> int | None:
    """Where in `head`, the letters before the numbers, the address begins; None if it is none of this form."""
    prefecture = next((p for p in _PREFECTURE.finditer(head) if _goes_on(head[p.end() :])), None)
    municipality = prefecture.end() if prefecture else _municipality(head)
    if municipality is not None:
        parts = _parts(head[municipality:].lstrip())
        if form.section and "字" not in "".join(parts):
            return None
        start = prefecture.start() if prefecture else _with_places(head, municipality)
        return start if len([part for part in parts if part]) >= form.parts else None
    if form.section or form.parts > 1 or (form.street and not re.search("[通条筋](?:り|[一-龥々]{1,3})?$", head)):
        return None
    return _area(head, form.known)


def _municipality(head: str) -> int | None:
    """Where the first municipality begins from which `head` goes on as an address does."""
    ends = [found.end() for found in re.finditer("[市区郡町村]", head)]
    known = [(start, end) for end in ends if (start := _known_before(head, end)) is not None]
    for end in ends:
        if not _goes_on(head[end:]):
            continue
        start = next((start for start, until in known if until == end), None)
        crossing = [s for s, e in known if s < end < e and (start is None or (start < s and end - start < e - s))]
        if crossing or (start is not None and head[end:].startswith("の") and is_common(head[start:end])):
            continue  # 日町 in 昨日町田市; 下町の
        if start is None:
            start = _unknown_before(head, end)
        if start is not None:
            return start
    return None


def _known_before(head: str, end: int) -> int | None:
    """Where the longest name of a place begins that ends there, of two letters at least."""
    starts = range(max(0, end - _LONGEST), end - 1)
    return next((s for s in starts if is_place(head[s:end]) and not is_glue(head[s:end])), None)


def _unknown_before(head: str, end: int) -> int | None:
    """Where the name of a municipality begins that is not in the dictionary."""
    if kanji := re.search(rf"[{_K}]{{2,}}\Z", head[:end]):
        start = _past_words(head, kanji.start(), end)
        return None if is_common(head[start:end]) else start
    kana = re.search(r"[ぁ-ん]{2,6}\Z", head[: end - 1])
    if kana is None or is_glue(kana.group()):
        return None
    words = (s for s in range(kana.start(), end - 2) if kinds(head[s : end - 1]))
    return next(words, kana.start())


def _past_words(head: str, start: int, end: int) -> int:
    """`start`, moved past a common word in kanji: 実家 in 実家霞見町."""
    words = ((e, head[start:e]) for e in range(end - 2, start + 1, -1))
    common = (e for e, word in words if re.fullmatch("[一-龥々]+", word) and is_common(word) and not is_place(word))
    return next(common, start)


def _area(head: str, known: bool) -> int | None:
    """Where the name of an area begins with which `head` ends."""
    place = _known_before(head, len(head))
    name = _NAME.search(head)
    if place is None and (name is None or (known and not _ENDS_AS_A_PLACE.search(head))):
        return None
    begins = len(head) if name is None else name.start()
    if place is not None and (place <= begins or is_common(head[begins:place])):
        start = place
    else:
        start = _past_words(head, begins, len(head))
        if head[start] in _BEHIND["が"] and (before := re.search(r"[ぁ-ん一-龥]{2,5}[がヶ]\Z", head[:start])):
            start = before.start()
    return _with_places(head, start)


def _with_places(head: str, start: int) -> int:
    """`start`, moved before places without 県 or 市: 新宿 of 新宿歌舞伎町."""
    while (more := _known_before(head, start)) is not None and not is_common(head[more:start]):
        start = more
    return start


def _parts(named: str) -> list[str]:
    """An address without its prefecture, cut behind its municipalities."""
    return [part for part in re.split("(?<=[^ ][市区郡町村])", named) if part]


def _goes_on(rest: str) -> bool:
    """Whether what stands between a municipality and the numbers names places, and is not a sentence."""
    at = 0
    while at < len(rest):
        ends = range(min(len(rest), at + _LONGEST), at, -1)
        place = next((e for e in ends if is_place(rest[at:e]) and not is_glue(rest[at:e])), None)
        if place is not None:
            at = place
        elif re.match(rf"[{_K} \d]", rest[at:]) or rest.startswith("通り", at - 1):
            at += 1
        elif (kana := _kana_of_a_place(rest, at)) is not None:
            at = kana
        else:
            return False
    return True


def _kana_of_a_place(rest: str, at: int) -> int | None:
    """Where the kana end that begin there, if they belong to a name: みなとみらい, 丸の内. None for にある."""
    words = re.match("[ぁ-ん]+", rest[at:]).group()
    end = at + len(words)
    begins = at == 0 or rest[at - 1] in "市区郡町村"
    if words in _BEHIND:
        if begins:
            return end if words == "の" and is_place(rest[end:]) else None
        return end if rest[end : end + 1] in tuple(_BEHIND[words]) else None
    goes_on = rest[end : end + 1] in tuple(_BEHIND_KANA + _BEHIND.get(words[-1], ""))
    is_named = begins or goes_on or rest[at - 1] in "字東西南北上下中新本 "
    return end if len(words) > 1 and is_named and not is_glue(words) else None
