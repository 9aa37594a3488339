"""Where schools, employers and stations are named in Japanese talk.

In: a text and GiNZA's reading of it. Out: the places of their names, with their kind (青葉高校, みなと商事, 若葉駅). A
kind alone (近くの高校, 最寄り駅) is no name. A firm counts as an employer where work is spoken of.
"""

import re
from collections.abc import Iterator

from spacy.tokens import Doc

from helpers.data.lexicon import any_of, kinds, up_to_glue
from helpers.data.people import Place, past_adverbs

_K = "一-龥々ヶァ-ヴーA-Za-z"
_SCHOOL = re.compile(
    rf"(?P<name>[{_K}]{{1,10}}|[一-龥々]{{1,3}}[がの][一-龥々]{{1,3}}|[ぁ-ん]{{2,6}}[一-龥々ァ-ヴー]{{0,6}})"
    r"(?P<part>女子|第[一二三四五六七八九十\d]+|東|西|南|北|中央|附属|付属)?"
    rf"{any_of('school_kinds')}+(?:中等部|高等部|中学|高校)?"
)
_SCHOOL_KIND = re.compile(rf"{any_of('school_kinds')}+")
_SCHOOL_GENERIC = re.compile(rf"{any_of('school_generic')}+")
_SCHOOL_SHORT = re.compile(
    r"(?<![一-龥々])[一-龥々]{2,5}(?:高|工|商|[工外医女体教農理商]?大|女子|中)"
    r"(?=(?:で|の|に|へ|を|は|が|も|と|出身|卒|、|。|$)(?![一-龥々]*校))"
)

_FORM = r"(?:株式会社|有限会社|合同会社|\(株\)|㈱|\(有\))"
_AT_A_FIRM = r"(?:(?:勤務|勤め|入社|退社|就職|転職|退職|様|御中|社員|社長|部長|課長|係長|代表)+(?![一-龥々]))?"
_FIRM = re.compile(
    rf"(?<![{_K}]){_FORM} ?(?P<first>[ぁ-ん]*)"
    rf"(?P<name>(?:[{_K}0-9&・]{{1,14}}?(?={_AT_A_FIRM}(?![{_K}0-9&・])))?)(?P<last>[ぁ-ん]*)"
)
_FIRM_BEFORE_FORM = re.compile(rf"(?:{any_of('days')})?(?P<name>[{_K}0-9&・]{{2,14}} ?{_FORM})(?![{_K}])")
_KANA_BEFORE_FORM = re.compile(rf"(?:^|(?<=[\s、。「の]))(?P<name>[ぁ-ん]{{2,6}}){_FORM}")
_END = r"(?![一-龥々ァ-ヴー](?<![辞勤働入退受通面]))"
_FIRM_ANYWHERE = re.compile(
    rf"(?:[{_K}・]{{2,10}}|[ぁ-ん]{{2,6}}[一-龥々ァ-ヴー]{{0,4}}){any_of('firm_industries')}{_END}"
)
_FIRM_AT_WORK = re.compile(
    rf"(?:特養|老健)?(?:[{_K}]{{1,10}}|[ぁ-ん]{{2,6}}[一-龥々ァ-ヴー]{{0,4}})"
    r"(?:総合|中央|記念|大学|市立|県立|市民|第[一二三四]|赤十字)?"
    rf"{any_of('firm_kinds')}{_END}"
)
_SHOP = re.compile(
    rf"(?<![ァ-ヴー]){any_of('shops')}(?![でにのはがをへや店屋さ])(?:・?[ァ-ヴーA-Za-z・]{{2,10}}|[一-龥々]{{1,6}}|[ぁ-ん]{{2,5}}の[里丘森家杜郷]|[ぁ-ん]{{2,6}}?(?=[でにのをは、。]|$))"
)
_FIRM_GENERIC = re.compile(rf"{any_of('firm_generic')}*{any_of('firm_kinds', 'firm_industries')}$")
_WORK = re.compile(any_of("work"))
_FIRM_LABELS = frozenset({"Company", "Company_Group", "Corporation_Other"})

_RAILWAY = re.compile(r"(?:電|線|鉄道|電鉄|ライン|モノレール|メトロ)$")
_STATION = re.compile(rf"[{_K}]{{1,9}}駅|[一-龥]{{0,3}}(?<![ぁ-ん])[ぁ-ん]{{2,6}}[一-龥々ァ-ヴー]{{0,4}}駅")
_STATION_GENERIC = re.compile(rf"{any_of('station_generic')}?駅")


def schools(text: str, doc: Doc) -> Iterator[Place]:
    """Places of schools' names."""
    for entity in doc.ents:
        name = entity.text.rstrip("はがのにをで、。 ")
        if entity.label_ == "School" and name and not _is_kind_of_school(name):
            yield entity.start_char, entity.start_char + len(name)
    for match in _SCHOOL.finditer(text):
        start = past_adverbs(doc, *match.span())
        if not _is_kind_of_school(text[start : match.end()]):
            yield start, match.end()
    for match in _SCHOOL_SHORT.finditer(text):
        found = kinds(match.group()) or kinds(match.group()[:-1])
        if any("固有名詞" in kind for kind in found) or (not found and match.group()[-1] in "高大"):
            yield match.span()


def _is_kind_of_school(name: str) -> bool:
    match = _SCHOOL.fullmatch(name)
    if match is None:
        return bool(_SCHOOL_KIND.fullmatch(name))
    return bool(_SCHOOL_KIND.fullmatch(name) or _SCHOOL_GENERIC.fullmatch(match["name"] + (match["part"] or "")))


def employers(text: str, doc: Doc) -> Iterator[Place]:
    """Places of the names of firms and offices at which somebody works."""
    yield from _with_form(text)
    found = [*_FIRM_ANYWHERE.finditer(text)]
    if _WORK.search(text):
        found += _FIRM_AT_WORK.finditer(text)
        yield from (match.span() for match in _SHOP.finditer(text))
        for entity in doc.ents:
            if entity.label_ in _FIRM_LABELS and len(entity.text) > 1:
                yield entity.start_char, entity.start_char + len(entity.text.split(" ")[0])
    for match in found:
        start = past_adverbs(doc, *match.span())
        name = text[start : match.end()]
        is_word = any("固有名詞" not in kind for kind in kinds(name))
        if name and not is_word and not _FIRM_GENERIC.fullmatch(name):
            yield start, match.end()


def is_railway(text: str, place: Place) -> bool:
    """Whether a railway is named at `place` that one goes by: 江ノ電, but not where work is spoken of."""
    return bool(_RAILWAY.search(text[slice(*place)])) and not _WORK.search(text)


def _with_form(text: str) -> Iterator[Place]:
    """Places of firms that are named with their form, 株式会社, without the words behind or before the name."""
    for match in _FIRM.finditer(text):
        if (end := _end_of_firm(match)) is not None:
            yield match.start(), end
    yield from (match.span("name") for match in _FIRM_BEFORE_FORM.finditer(text))
    for match in _KANA_BEFORE_FORM.finditer(text):
        name, are = match["name"], " ".join(kinds(match["name"]))
        if up_to_glue(name) == name and ("名詞" in are or not re.search("連体詞|形容詞", are)):
            yield match.span()


def _end_of_firm(match: re.Match) -> int | None:
    """Where the name ends that `_FIRM` found; None if it is none: 株式会社の社長."""
    first, name = match["first"], match["name"]
    kana = up_to_glue(first)
    if name and (kana == first or (re.search("..の$", first) and name[0] in "里丘森家杜郷台町国")):
        last = up_to_glue(match["last"])
        is_noun = len(last) > 1 and (not kinds(last) or any(kind.startswith("名詞") for kind in kinds(last)))
        return match.end("name") + len(last) * is_noun
    return match.start("first") + len(kana) if len(kana) > 1 else None


def stations(text: str, doc: Doc) -> Iterator[Place]:
    """Places of stations' names, with 駅."""
    places = [(e.start_char, e.end_char) for e in doc.ents if e.text.endswith("駅")]
    places += [match.span() for match in _STATION.finditer(text)]
    for start, end in places:
        start = past_adverbs(doc, start, end)
        if not _STATION_GENERIC.fullmatch(text[start:end]):
            yield start, end
