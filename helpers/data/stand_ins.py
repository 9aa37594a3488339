"""What stands in for a personal detail: another name, number or place, that reads naturally and is nobody's.

In: the kind and the words of each detail of one conversation. Out: its stand-in, the same wherever the same person,
number or place is meant. A name is somebody's however it is written: 三浦, みうら and Miura are one person.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from helpers.data import lexicon
from helpers.data.people import names_in, parts_of_name
from helpers.data.readings import is_latin, loosely, plain, readings
from helpers.japanese import narrow

_SURNAMES = ("佐藤", "鈴木", "高橋", "伊藤", "渡辺", "山本", "中村", "小林", "加藤", "吉田", "山田", "松本")
_GIVEN = {
    "kanji": ("陽菜", "大輔", "美咲", "健太", "彩香", "拓也", "真由", "翔太", "千尋", "直樹"),
    "hiragana": ("ひなた", "みなと", "ゆい", "なつき", "かえで", "りく", "つむぎ", "はるか", "そうた", "あおい"),
    "katakana": ("ユイ", "ケン", "マナ", "リク", "サラ", "レン", "エマ", "ジン", "ニナ", "トム"),
    "latin": ("Yui", "Ken", "Mana", "Riku", "Sara", "Ren", "Emi", "Jin", "Nina", "Toma"),
}
_NAME = re.compile(rf"(?:{'|'.join((*_SURNAMES, *(name for pool in _GIVEN.values() for name in pool)))})\d*")
# What stands around a name by mistake is of one letter: 陽菜下 in 陽菜下がる.
_NAME_AND_LETTER = re.compile(rf"\W*(?:{_NAME.pattern})+(?P<letter>[ぁ-んァ-ヴー一-龥]?)\W*")
_NUMBER = re.compile(r"〒?(?:090)?[-0]{4,}\d{0,3}")
_EXAMPLE = re.compile(r"https?://example\.(?:com|net|org)/\d+")  # RFC 2606: nobody's; it once stood for links
_LINKS = ("このリンク", "別のリンク")
_PLACES = ("ひかり", "みどり", "若葉", "青葉", "白鳥", "銀杏", "朝日", "清流", "千草", "若松")
_KIND = re.compile(
    r"(?:駅|大学院|大学|短大|高校|高等学校|高専|中学校|中学|小学校|幼稚園|保育園|こども園|専門学校|学園|学院|予備校|日本語学校|支援学校|"
    r"総合病院|病院|医院|クリニック|歯科|銀行|信用金庫|商事|商店|建設|工業|工務店|製作所|産業|物産|電機|運輸|運送|物流|食品|製薬|薬局|不動産|市役所|区役所|事務所|食堂|"
    r"印刷|出版|書店|水産|農園|牧場|システムズ?|ソフト|警備|倉庫|ホテル|旅館|[高中小大])$"
)


class StandIns:
    """The stand-ins of one conversation; no name that is said in it is given to somebody else.

    Args:
        said: all that is said in the conversation.
        kept: names that stay.
        called: name of a speaker → what he or she is called instead.
        others: the other speakers' names: what they share with one of `called`, as in a family, is not hers alone.
    """

    def __init__(
        self, said: str, kept: Iterable[str] = (), called: Mapping[str, str] | None = None, others: Iterable[str] = ()
    ):
        called = called or {}
        self._taken, self._said = {*kept, *called.values()}, said
        self._given: dict[tuple[str, str], str] = {}
        shared = {part for name in others for part in names_in(name)}
        self._people = [
            _Person(other, {_spelled(part) for part in parts}, set().union(*map(readings, parts)), whole=True)
            for name, other in called.items()
            if (parts := names_in(name) - shared)
        ]

    def of(self, entity: str, words: str) -> str:
        """The stand-in for `words`, which is an `entity`."""
        if entity == "PERSON":
            parts = [
                (part, self._person(part, kind) if part.strip(" 　・") else None) for part, kind in parts_of_name(words)
            ]
            people = [person for _, person in parts if person]
            if people and people[0].whole and all(person is people[0] for person in people):
                return people[0].stand_in
            return "".join(person.stand_in if person else part for part, person in parts)
        key = (entity, _key(entity, words))
        if key not in self._given:
            number = sum(kind == entity for kind, _ in self._given) + 1
            self._given[key] = stand_in(entity, narrow(words), number)
        return self._given[key]

    def _person(self, part: str, kind: str) -> "_Person":
        new = _Person("", {_spelled(part)}, set(readings(_core(part))))
        for same in (_Person.is_spelled_as, _Person.is_read_as, _Person.may_be_read_as):
            alike = [person for person in self._people if same(person, new)]
            if alike and (len(alike) == 1 or same is not _Person.may_be_read_as):
                alike[0].take_in(new)
                return alike[0]
        new.stand_in = self._name(_core(part), kind)
        self._people.append(new)
        return new

    def _name(self, part: str, kind: str) -> str:
        pool = _SURNAMES if kind == "surname" else _GIVEN[_script(part)]
        free = [name for name in (*pool, *_SURNAMES) if name not in self._taken and name not in self._said]
        name = free[0] if free else f"{pool[0]}{len(self._taken)}"
        self._taken.add(name)
        return name


@dataclass
class _Person:
    """Somebody, by how a part of his name is spelled and read. With `whole`, one stand-in is for all parts together."""

    stand_in: str
    spellings: set[str]
    readings: set[str] = field(default_factory=set)
    whole: bool = False

    def is_spelled_as(self, other: "_Person") -> bool:
        return bool(self.spellings & other.spellings)

    def is_read_as(self, other: "_Person") -> bool:
        """Two names in other kanji are two people; a surname is no given name."""
        return bool(self.readings & other.readings) and self._can_be(other)

    def may_be_read_as(self, other: "_Person") -> bool:
        """Whether one of the two is written in Latin letters, in which readings are not told apart."""
        alike = set(map(loosely, self.readings)) & set(map(loosely, other.readings))
        return bool(alike) and self._can_be(other) and any(all(map(is_latin, p.spellings)) for p in (self, other))

    def take_in(self, other: "_Person") -> None:
        if self.whole:
            pass  # several names, of which each keeps its reading
        elif all(map(is_latin, self.spellings)):
            self.readings = other.readings or self.readings
        elif self.readings & other.readings:
            self.readings &= other.readings  # 健 is read ケン here, not タケシ
        self.spellings |= other.spellings

    def _can_be(self, other: "_Person") -> bool:
        if all(any(re.search("[一-龥]", spelling) for spelling in p.spellings) for p in (self, other)):
            return False
        mine, others = ({kind for s in p.spellings for kind in _kinds_of_name(s)} for p in (self, other))
        return not mine or not others or bool(mine & others)


def _kinds_of_name(name: str) -> set[str]:
    return {kind for kind in lexicon.kinds(name) if "人名-姓" in kind or "人名-名" in kind}


def _core(part: str) -> str:
    """The letters of a name, without what stands around them in a display name: 🌸みお🌸."""
    found = re.search(r"[^\W\d_]+", part)
    return found.group() if found else part


def _spelled(part: str) -> str:
    return plain(_core(part))


def _script(name: str) -> str:
    for script, pattern in (("hiragana", "[ぁ-んー]+"), ("katakana", "[ァ-ヴー・]+"), ("latin", "[A-Za-z. -]+")):
        if re.fullmatch(pattern, narrow(name)):
            return script
    return "kanji"


def _key(entity: str, words: str) -> str:
    """What makes two spellings the same thing: for numbers the digits alone."""
    narrowed = narrow(words).lower()
    if entity in ("PHONE_NUMBER", "POSTCODE", "MY_NUMBER", "CREDIT_CARD", "BANK_ACCOUNT"):
        return re.sub(r"\D", "", re.sub(r"\+81\D*0?", "0", narrowed))
    return narrowed


def is_stand_in(entity: str, words: str, kept: Iterable[str] = ()) -> bool:
    """Whether `words`, found as an `entity`, are a stand-in, or one together with a name that is kept."""
    if entity == "PERSON":
        kept, more = set(kept), _NAME_AND_LETTER.fullmatch(words)
        if more and more["letter"] not in lexicon.words("given_one_sign"):
            return True
        return all(part in kept or _NAME.fullmatch(part) for part, _ in parts_of_name(words) if part.strip(" 　・"))
    said = narrow(words)
    if _NUMBER.fullmatch(said) or _EXAMPLE.fullmatch(said):
        return True
    stand_ins = tuple(stand_in(entity, said, number) for number in range(1, 100))
    return said in stand_ins or (entity == "ADDRESS" and said.endswith(stand_ins))


def stand_in(entity: str, words: str, number: int) -> str:
    """The `number`-th stand-in (from 1) for details of this kind, of the sort that `words` are; not for a PERSON."""
    place = _PLACES[(number - 1) % len(_PLACES)] + ("" if number <= len(_PLACES) else str(number))
    kind = found.group() if (found := _KIND.search(words)) else ""
    return {
        "URL": _LINKS[number - 1] if number <= len(_LINKS) else f"{number}つ目のリンク",
        "EMAIL_ADDRESS": f"user{number}@example.com",
        "SOCIAL_ID": f"{'@' * words.startswith('@')}user_{number}",
        "MY_NUMBER": f"0000-0000-{number:04}",
        "CREDIT_CARD": f"0000-0000-0000-{number:04}",
        "BANK_ACCOUNT": f"{number:07}",
        "PHONE_NUMBER": f"090-0000-{number:04}",
        "POSTCODE": f"〒000-{number:04}",
        "ADDRESS": f"ひかり市本町1丁目{number}番地",
        "BIRTH_DATE": _birth_date(words, (number - 1) % 28 + 1),
        "SCHOOL": place + (kind or "学園"),
        "EMPLOYER": place + (kind or "商事"),
        "STATION": place + "駅",
    }[entity]


def _birth_date(words: str, day: int) -> str:
    """Another date, as exact as the one said and written as it was."""
    if re.fullmatch(r"\d{8}", words):
        return f"199001{day:02}"
    if re.match(r"\d{1,2}/", words):
        return f"1/{day}"
    if "年" in words or re.match(r"\d{4}|[MTSHR]\d", words):
        return f"1990年1月{day}日"
    return f"1月{day}日"
