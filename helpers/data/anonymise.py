"""Anonymise Japanese chats by patterns.

In: the turns of one conversation. Out: the same turns with stand-ins that read naturally (the same thing gets the same
stand-in throughout the conversation), and counts by entity.

Patterns find what has a form: numbers, addresses, handles, names with an honorific. A name without one, a workplace, a
rare illness or a story that gives somebody away passes: finding those takes a named-entity model (Presidio with GiNZA)
and a person who reads.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ENTITIES = ("URL", "EMAIL", "SOCIAL", "ID_NUMBER", "PHONE", "POSTCODE", "ADDRESS", "NAME")

# Full-width digits and signs are mapped to half-width one for one before matching, so patterns need only the latter.
_D = r"\d"
_N = r"(?:\d+|[一二三四五六七八九十]+)"
_PLACE = r"[一-龥々ヶケァ-ヴー]"
_PREFECTURE = rf"(?:北海道|東京都|京都府|大阪府|{_PLACE}{{2,3}}県)?"
_PATTERNS = {
    "URL": re.compile(r"(?:https?://|www\.)[A-Za-z0-9./?=&_%#~:+-]+"),
    "EMAIL": re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"),
    "SOCIAL": re.compile(
        r"(?<![A-Za-z0-9._])@[A-Za-z0-9_.]{2,30}"
        r"|(?:(?<=ID:)|(?<=IDは)|(?<=ID: )|(?<=ID は))[A-Za-z0-9_.-]{4,30}"
    ),
    "ID_NUMBER": re.compile(rf"(?<!{_D})(?:{_D}{{4}}[- ]){{2,3}}{_D}{{4}}(?!{_D})|(?<!{_D}){_D}{{12,16}}(?!{_D})"),
    "PHONE": re.compile(
        rf"(?<!{_D})(?:\+81[- ]?{_D}{{1,4}}[- ]?{_D}{{1,4}}[- ]?{_D}{{3,4}}"
        rf"|\(0{_D}{{1,4}}\) ?{_D}{{1,4}}[- ]?{_D}{{3,4}}"
        rf"|0{_D}{{1,4}}[- ]{_D}{{1,4}}[- ]{_D}{{3,4}}|0{_D}{{1,4}}\({_D}{{1,4}}\){_D}{{3,4}}|0{_D}{{9,10}})(?!{_D})"
    ),
    "POSTCODE": re.compile(rf"〒 ?{_D}{{3}}-?{_D}{{4}}(?!{_D})|(?<![\d-]){_D}{{3}}-{_D}{{4}}(?![\d-])"),
    "ADDRESS": re.compile(
        rf"{_PREFECTURE}(?:{_PLACE}{{1,6}}[市区郡町村])*{_PLACE}[一-龥々ヶケァ-ヴーがのつ]{{0,7}}?"
        rf"{_N}丁目(?:{_N}(?:番地?|-))?(?:(?:の)?{_N}号?)?"
        rf"|{_PREFECTURE}(?:{_PLACE}{{1,6}}[市区郡町村])+(?:{_PLACE}|[がのつしきたみさ]){{0,8}}"
        rf"(?:{_N}番地?(?:の?{_N})?(?:{_N}?号)?|{_D}+-{_D}+(?:-{_D}+)*)"
        rf"|{_PLACE}{{2,8}}{_N}番地(?:の?{_N})?"
    ),
}

_ANY = re.compile("|".join(f"(?P<{entity}>{pattern.pattern})" for entity, pattern in _PATTERNS.items()))

_HONORIFIC = r"(?:さん|くん|君|ちゃん(?!こ)|様|さま|先輩|氏)"
_WHEN = (
    r"(?:今日|昨日|明日|先日|今朝|昨夜|今夜|毎日|最近|今度|結局|同僚|上司|後輩|同期|友達|友人|"
    r"元彼|彼氏|彼女|担当|部長|課長|店長)?"
)  # One kanji before an honorific is mostly a verb or a noun (聞くん, 許さん, お日さま); these are surnames.
_NAMED = re.compile(
    rf"(?:(?<![一-龥々おご]){_WHEN}(?P<kanji>[一-龥々]{{2,4}}|[林森原関堀岡辻島星泉菅桂岸])"
    rf"|(?<![ァ-ヴー])(?P<kata>[ァ-ヴー]{{2,6}})"
    rf"|(?:^|(?<=[\s、。！？!?「『（(…]))(?P<hira>[ぁ-ん]{{2,4}}?))(?P<honorific>{_HONORIFIC})"
)
_INTRODUCED = re.compile(
    r"(?:名前は|本名は|氏名は|氏名:)(?P<a>[一-龥々]{2,5}|[ァ-ヴー・]{3,12})(?=です|だ|と|って|。|、|$)"
    r"|(?P<b>[一-龥々]{2,5}|[ァ-ヴー・]{3,12})(?=と申します|といいます|と言います)"
)
# Nouns that take an honorific and name nobody.
_NOUNS = re.compile(
    r"主人|息子|祖父|祖母|旦那|父母|各位|馳走|苦労|世話|業者|患者|記者|学者|役者|芸者|"
    r"大家|相手|先方|他人|女王|王子|叔母|叔父|伯母|伯父|後輩|妊婦|常連|新郎|新婦|親御|"
    r"親父|生徒|編集|板前|弟子|両親|先祖|一回|多種多|美人|外人|新人|奥様|神様|王様|客様|"
    r"みな|おかあ|おとう|かあ|とう|にい|ねえ|おにい|おねえ|おじい|おばあ|じい|ばあ|おじ|"
    r"おば|あか|かみ|ちゃん|しょうゆ|おつかれ|ごちそう|ごくろう|おきゃく|むすこ|むすめ|おく|"
    r"だんな|だれか|どちら|おひめ|ぼく|うさぎ|くま|ぞう|パパ|ママ|サンタ|たく"
)
_OCCUPATION = re.compile(r"[屋員師手者官長士家医]$|(?:先生|選手|学生|同士)$")
_AROUND = {"kanji": "一-龥々", "kata": "ァ-ヴー"}

_SURNAMES = ("佐藤", "鈴木", "高橋", "伊藤", "渡辺", "山本", "中村", "小林", "加藤", "吉田")
_GIVEN = ("ひなた", "あおい", "みなと", "ゆい", "そら", "なつき", "かえで", "りく", "つむぎ", "はるか")


@dataclass(frozen=True)
class Anonymised:
    """The turns without what was found, and how many places were replaced, by entity."""

    texts: list[str]
    counts: Counter


def anonymise(texts: Sequence[str], keep: Iterable[str] = ("さくら",)) -> Anonymised:
    """Replace personal details in the turns of one conversation.

    Args:
        texts: all turns of one conversation, in order.
        keep: names that stay, such as the persona's own.
    """
    kept = set(keep)
    stand_ins: dict[tuple[str, str], str] = {}
    counts: Counter = Counter()
    used = " ".join(texts)
    done = []
    for text in texts:
        done.append(_replace(text, stand_ins, counts))
    for text in done:
        for name, honorific in _names(text, kept):
            stand_ins.setdefault(("NAME", name), _name_for(honorific, used, stand_ins))
    return Anonymised([_replace_names(text, stand_ins, counts) for text in done], counts)


def _narrow(text: str) -> str:
    """`text` with full-width letters, digits and signs made half-width and hyphens made one, length unchanged."""
    narrow = [n if len(n := unicodedata.normalize("NFKC", c)) == 1 else c for c in text]
    narrow = ["-" if c in "‐‑‒–—―−" else c for c in narrow]
    # The long vowel mark between digits is a hyphen typed in kana mode.
    return re.sub(r"(?<=\d)ー(?=\d)", "-", "".join(narrow))


def _replace(text: str, stand_ins: dict, counts: Counter) -> str:
    parts, end = [], 0
    for match in _ANY.finditer(_narrow(text)):
        entity = match.lastgroup
        number = sum(kind == entity for kind, _ in stand_ins) + 1
        parts += [
            text[end : match.start()],
            stand_ins.setdefault((entity, _key(entity, match.group())), _stand_in(entity, number)),
        ]
        end = match.end()
        counts[entity] += 1
    return "".join([*parts, text[end:]])


def _key(entity: str, found: str) -> str:
    """What makes two spellings the same thing: for numbers the digits alone."""
    if entity not in ("PHONE", "POSTCODE", "ID_NUMBER"):
        return found.lower()
    return re.sub(r"\D", "", found.replace("+81", "0").replace("(0)", ""))


def _stand_in(entity: str, number: int) -> str:
    return {
        "URL": f"https://example.com/{number}",
        "EMAIL": f"user{number}@example.com",
        "SOCIAL": f"@user_{number}",
        "ID_NUMBER": f"0000-0000-0000-{number:04}",
        "PHONE": f"090-0000-{number:04}",
        "POSTCODE": f"〒000-{number:04}",
        "ADDRESS": f"ひかり市本町1丁目{number}番地",
    }[entity]


def _names(text: str, kept: set[str]) -> Iterable[tuple[str, str]]:
    for match in _NAMED.finditer(text):
        name = match["kanji"] or match["kata"] or match["hira"]
        if name not in kept and not _NOUNS.fullmatch(name) and not _OCCUPATION.search(name):
            yield name, match["honorific"]
    for match in _INTRODUCED.finditer(text):
        name = match["a"] or match["b"]
        if name not in kept:
            yield name, "さん"


def _name_for(honorific: str, used: str, stand_ins: dict) -> str:
    taken = set(stand_ins.values())
    pool = _GIVEN if honorific in ("ちゃん", "くん", "君") else _SURNAMES
    free = [name for name in (*pool, *_SURNAMES, *_GIVEN) if name not in taken and name not in used]
    return free[0] if free else f"{pool[0]}{len(taken)}"


def _replace_names(text: str, stand_ins: dict, counts: Counter) -> str:
    """Names, with and without their honorific; a kana name needs the honorific, for it can be part of any word."""
    names = {name: stand_in for (entity, name), stand_in in stand_ins.items() if entity == "NAME"}
    if not names:
        return text
    alternatives = []
    for name in sorted(names, key=len, reverse=True):
        script = "kata" if re.fullmatch("[ァ-ヴー・]+", name) else "kanji" if re.fullmatch("[一-龥々]+", name) else None
        bare = rf"(?<![{_AROUND[script]}]){re.escape(name)}(?![{_AROUND[script]}])|" if script and len(name) > 1 else ""
        alternatives.append(f"{bare}{re.escape(name)}(?={_HONORIFIC})")

    def swap(match: re.Match) -> str:
        counts["NAME"] += 1
        return names[match.group()]

    return re.sub("|".join(alternatives), swap, text)
