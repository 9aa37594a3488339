"""Anonymise a talk: each personal detail gives way to a stand-in that reads naturally.

In: the turns of one conversation. Out: the same turns, in which the same person, number or place has the same stand-in
throughout, and counts by entity. What is found is what `recognizers` finds: a story that gives somebody away stays, so
a person reads before anything is learned from.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from helpers.conversations import Conversation, Message
from helpers.data.people import parts_of_name, repeats
from helpers.data.recognizers import Finding, find
from helpers.japanese import narrow

_SURNAMES = ("佐藤", "鈴木", "高橋", "伊藤", "渡辺", "山本", "中村", "小林", "加藤", "吉田", "山田", "松本")
_GIVEN = {
    "kanji": ("陽菜", "大輔", "美咲", "健太", "彩香", "拓也", "真由", "翔太", "千尋", "直樹"),
    "hiragana": ("ひなた", "みなと", "ゆい", "なつき", "かえで", "りく", "つむぎ", "はるか", "そうた", "あおい"),
    "katakana": ("ユイ", "ケン", "マナ", "リク", "サラ", "レン", "エマ", "ジン", "ニナ", "トム"),
    "latin": ("Yui", "Ken", "Mana", "Riku", "Sara", "Ren", "Emi", "Jin", "Nina", "Toma"),
}
_NAME = re.compile(rf"(?:{'|'.join((*_SURNAMES, *(name for pool in _GIVEN.values() for name in pool)))})\d*")
_NUMBER = re.compile(r"〒?(?:090)?[-0]{4,}\d{0,3}")
_PLACES = ("ひかり", "みどり", "若葉", "青葉", "白鳥", "銀杏", "朝日", "清流", "千草", "若松")
_KIND = re.compile(
    r"(?:駅|大学院|大学|短大|高校|高等学校|高専|中学校|中学|小学校|幼稚園|保育園|こども園|専門学校|学園|学院|予備校|日本語学校|支援学校|"
    r"総合病院|病院|医院|クリニック|歯科|銀行|信用金庫|商事|商店|建設|工業|工務店|製作所|産業|物産|電機|運輸|運送|物流|食品|製薬|薬局|不動産|市役所|区役所|事務所|食堂|"
    r"印刷|出版|書店|水産|農園|牧場|システムズ?|ソフト|警備|倉庫|ホテル|旅館|[高中小大])$"
)


@dataclass(frozen=True)
class Anonymised:
    """The turns without what was found, and how many places were replaced, by entity."""

    texts: list[str]
    counts: Counter


def anonymise(texts: Sequence[str], keep: Iterable[str] = (), known: Iterable[str] = ()) -> Anonymised:
    """Replace personal details in the turns of one conversation.

    Args:
        texts: all turns of one conversation, in order.
        keep: names that stay, such as the persona's own.
        known: names that are known to be somebody's, such as the speakers' in an export.
    """
    kept = set(keep)
    found = [[f for f in find(text) if text[f.start : f.end] not in kept] for text in texts]
    names = {
        t[f.start : f.end] for t, findings in zip(texts, found, strict=True) for f in findings if f.entity == "PERSON"
    }
    names |= set(known) - kept
    stand_ins = _StandIns(" ".join(texts), kept)
    counts: Counter = Counter()
    done = []
    for text, findings in zip(texts, found, strict=True):
        places = [*findings, *(Finding("PERSON", *place) for place in repeats(narrow(text), names))]
        parts, end = [], 0
        for f in sorted(places, key=lambda f: (f.start, -f.end)):
            if f.start < end:
                continue
            parts += [text[end : f.start], stand_ins.of(f.entity, text[f.start : f.end])]
            end = f.end
            counts[f.entity] += 1
        done.append("".join([*parts, text[end:]]))
    return Anonymised(done, counts)


def anonymise_conversation(
    conversation: Conversation, keep: Iterable[str] = (), known: Iterable[str] = ()
) -> tuple[Conversation, Counter]:
    """`anonymise` for a conversation's turns and for what she is told of the user in it, memories and topics: the
    conversation without what was found, and the counts."""
    metadata = conversation.metadata
    told = [*metadata.memories, *metadata.topics]
    done = anonymise([*(message.content for message in conversation.messages), *told], keep, known)
    texts = iter(done.texts)
    messages = [Message(role=m.role, content=next(texts)) for m in conversation.messages]
    memories, topics = ([next(texts) for _ in of] for of in (metadata.memories, metadata.topics))
    metadata = metadata.model_copy(update={"memories": memories, "topics": topics})
    return conversation.model_copy(update={"messages": messages, "metadata": metadata}), done.counts


def left_over(texts: Sequence[str], keep: Iterable[str] = ()) -> list[tuple[int, Finding]]:
    """What is found in the turns although it is neither in `keep` nor a stand-in, each with its turn (from 0): nothing
    after `anonymise`. Somebody whose real name is one of the stand-ins' cannot be told from it."""
    kept = set(keep)
    return [
        (turn, finding)
        for turn, text in enumerate(texts)
        for finding in find(text)
        if (words := text[finding.start : finding.end]) not in kept and not _is_stand_in(finding.entity, words)
    ]


def _is_stand_in(entity: str, words: str) -> bool:
    if entity == "PERSON":
        return all(_NAME.fullmatch(part) for part, _ in parts_of_name(words) if part.strip(" 　・"))
    if _NUMBER.fullmatch(said := narrow(words)):
        return True
    stand_ins = tuple(_stand_in(entity, said, number) for number in range(1, 100))
    return said in stand_ins or (entity == "ADDRESS" and said.endswith(stand_ins))


class _StandIns:
    """Stand-ins of one conversation; no name that is said in it is given to somebody else."""

    def __init__(self, said: str, kept: set[str]):
        self._taken, self._said = set(kept), said
        self._given: dict[tuple[str, str], str] = {}

    def of(self, entity: str, words: str) -> str:
        if entity == "PERSON":
            return "".join(
                part if not part.strip(" 　・") else self._name(part, kind) for part, kind in parts_of_name(words)
            )
        key = (entity, _key(entity, words))
        if key not in self._given:
            number = sum(kind == entity for kind, _ in self._given) + 1
            self._given[key] = _stand_in(entity, narrow(words), number)
        return self._given[key]

    def _name(self, part: str, kind: str) -> str:
        pool = _SURNAMES if kind == "surname" else _GIVEN[_script(part)]
        if ("PERSON", part) not in self._given:
            free = [n for n in (*pool, *_SURNAMES) if n not in self._taken and n not in self._said]
            self._given["PERSON", part] = free[0] if free else f"{pool[0]}{len(self._taken)}"
            self._taken.add(self._given["PERSON", part])
        return self._given["PERSON", part]


def _script(name: str) -> str:
    for script, pattern in (("hiragana", "[ぁ-んー]+"), ("katakana", "[ァ-ヴー・]+"), ("latin", "[A-Za-z. -]+")):
        if re.fullmatch(pattern, name):
            return script
    return "kanji"


def _key(entity: str, words: str) -> str:
    """What makes two spellings the same thing: for numbers the digits alone."""
    narrowed = narrow(words).lower()
    if entity in ("PHONE_NUMBER", "POSTCODE", "MY_NUMBER", "CREDIT_CARD", "BANK_ACCOUNT"):
        return re.sub(r"\D", "", narrowed.replace("+81", "0").replace("(0)", ""))
    return narrowed


def _stand_in(entity: str, words: str, number: int) -> str:
    place = _PLACES[(number - 1) % len(_PLACES)] + ("" if number <= len(_PLACES) else str(number))
    kind = found.group() if (found := _KIND.search(words)) else ""
    return {
        "URL": f"https://example.com/{number}",
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
