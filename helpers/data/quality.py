"""The quality gate: what the companion would unlearn her character from, found by the letter.

In: conversations and the persona card. Out: for each conversation the list of reasons against it; none means that it
passes. Rules are letters, not judgement: fluent nonsense passes.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml

from helpers.ai_question import says_ai_unasked
from helpers.conversations import Conversation
from helpers.data.duplicates import repeats
from helpers.data.register import is_mixed, register_of, sentences
from helpers.files import write_atomically
from helpers.japanese import bare, japanese_share
from helpers.persona import PersonaCard
from helpers.safety.unsafe import unsafe

MIN_REPLY_CHARS = 4
MIN_JAPANESE_SHARE = 0.7
MIN_VOICE_SHARE = 0.2  # of the replies; all but 3 of Sakura's 526 dialogues and 1 of Seiji's 84 have it
AUTHORED = ("hand", "counterfactual")  # sources whose replies somebody wrote as hers

_HIRAGANA = re.compile(r"[ぁ-ん]")
# U+FFFD, control and zero-width characters, and what UTF-8 looks like when read as Latin-1 or as Shift_JIS.
_MOJIBAKE = re.compile(r"[\ufffd\u0080-\u009f\u200b\u200c\ufeff]|[ãÃ][\u0080-\u00bf]|繧|縺|譁�", re.UNICODE)
# Parts of an emoji without the rest: a joiner, a skin tone, a variation mark or a keycap alone, half a flag.
_PICTURE = r"[\u203c\u2049\u2100-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001f1e5\U0001f200-\U0001faff]"
_TONE, _FLAG = r"[\U0001f3fb-\U0001f3ff]", r"[\U0001f1e6-\U0001f1ff]"
_WHOLE_EMOJI = re.compile(
    rf"{_FLAG}{{2}}|[0-9#*]\ufe0f?\u20e3|(?!{_TONE}){_PICTURE}\ufe0f?{_TONE}?(?:\u200d(?!{_TONE}){_PICTURE}\ufe0f?{_TONE}?)*|[©®]\ufe0f"
)
_EMOJI_PART = re.compile(rf"[\u200d\ufe0f\u20e3]|{_TONE}|{_FLAG}")
_PUPPET = re.compile(r"^(?:user|ユーザー?|あなた|私|[AB])[:：]|\n\s*\S{1,8}[:：]", re.IGNORECASE)
_PUPPET_ACT = re.compile(r"(?:あなた|君|きみ)は(?:そう言って|うなず|頷|微笑|笑っ|泣い|答え|黙)[^。]{0,12}[たる]。")
_ASKS_WHAT = re.compile(r"(?:とは|って何|何です|何が|誰)")
_DEFINES = re.compile(
    r"(?:である|であった|ことです|ことである|ものです|ものである|を指します|単位|学問|科学です|分野です)[。．」]*$"
)
_NOUN_END = re.compile(r"[一-龥々ァ-ヶーA-Za-z0-9]です?[。．]?$|[一-龥々ァ-ヶーA-Za-z0-9][。．]?$")
_MACHINE = re.compile(
    r"ロボット|ソフトウェア|ハードウェア|プログラム|プロセッサ|ボット|マルチスレッド|人間(?:は|の感情)|コンピュ|電源|電気を?食|"
    r"バイナリ|クローン|サーバー|人工|私は人間では|感情(?:が|は)(?:ない|ありません)|(?:感情|気持ち)がな|RAM|Python"
)
_ASKS_BACK = re.compile(r"[？?]|ですか|ますか")
_THANKS = re.compile(r"ありがと|おめでと|ごめん|すみません|おかえり|こんにちは|こんばんは|おはよう|おやすみ|元気")
# Not 私は and それは, with which sentences begin in Japanese too, nor 彼 and 彼女, who may be somebody's sweetheart.
_TRANSLATED = re.compile(r"(?:あなた|彼ら|それら)[はがをのにも]")
_SPOKEN = re.compile(r"[ぁ-ん！？!?…〜～]")


@dataclass(frozen=True)
class Reason:
    """One rule that a conversation breaks, and where or how."""

    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


@dataclass
class Verdict:
    """A conversation and what speaks against it."""

    conversation: Conversation
    reasons: list[Reason] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        return not self.reasons


def check_reply(user: str, reply: str, level: str, card: PersonaCard) -> list[Reason]:
    """The reasons against one reply to `user` at relationship `level`."""
    found = []

    def against(rule: str, detail: str) -> None:
        found.append(Reason(rule, detail))

    for rule, patterns in card.forbidden.items():
        if hit := next((m for p in patterns if (m := re.search(p, reply, re.MULTILINE))), None):
            against(rule, f"says {hit.group().strip()!r}, which the card forbids")
    if _MOJIBAKE.search(user + reply):
        against("mojibake", "holds broken, control or zero-width characters")
    if _EMOJI_PART.search(_WHOLE_EMOJI.sub("", reply)):
        against("emoji", "holds a part of an emoji without the rest")
    for kind, words in unsafe(reply).items():
        against("unsafe", f"{kind}: says {words!r}")
    if (share := japanese_share(reply)) < MIN_JAPANESE_SHARE:
        against("language", f"{share:.0%} of its letters are Japanese")
    if len(reply) > card.max_reply_chars:
        against("length", f"{len(reply)} characters, and the card allows {card.max_reply_chars}")
    if len(reply) < MIN_REPLY_CHARS:
        against("length", f"{len(reply)} characters, and it takes {MIN_REPLY_CHARS} to say something")
    if register_of(reply) != card.levels[level].register_:
        against("register", f"is {register_of(reply)}, and she is {card.levels[level].register_} at {level}")
    elif card.levels[level].register_ == "polite" and is_mixed(reply):
        against("register", "falls from polite into plain")
    if _PUPPET.search(reply) or re.match(rf"{re.escape(card.name)}[:：]", reply) or _PUPPET_ACT.search(reply):
        against("puppeteering", "speaks or acts for the user")
    if not _HIRAGANA.search(reply):
        against("dictionary", "is a bare name or number, not a sentence")
    elif _DEFINES.search(reply) or (_ASKS_WHAT.search(user) and _NOUN_END.search(reply) and "？" not in reply):
        against("dictionary", "answers like an encyclopaedia")
    if _MACHINE.search(reply) or says_ai_unasked(reply, [user]):
        against("out_of_character", "talks as a machine")
    if bare(user) and bare(user) == bare(reply):
        against("echo", "only repeats the user")
    return found


def check_import(conversation: Conversation, card: PersonaCard) -> list[Reason]:
    """Further reasons against a dialogue that nobody wrote as hers: it must be talk, and sound like her.

    A voice is heard in a dialogue, not in each of its replies: about half of those that were written as hers have none
    of the card's sentence endings, and are right to.
    """
    found = []
    if any(_TRANSLATED.search(message.content) for message in conversation.messages):
        found.append(Reason("translated", "uses pronouns as translated prose does and speech does not"))
    endings = re.compile(f"(?:{'|'.join(map(re.escape, card.sentence_endings))})$")
    hers = [
        bool(_ASKS_BACK.search(r) or _THANKS.search(r) or any(endings.search(s) for s in sentences(r)))
        for r in conversation.replies
    ]
    if sum(hers) < MIN_VOICE_SHARE * len(hers):
        some, heard = ", ".join(card.sentence_endings[:3]), f"{sum(hers)} of {len(hers)} replies"
        found.append(Reason("voice", f"has an ending of the card's ({some}, …), a question or thanks in {heard}"))
    if not _SPOKEN.search(conversation.messages[0].content):
        found.append(Reason("no_turn", "the user's first turn is a bare topic, not something one says to her"))
    return found


def check(conversation: Conversation, card: PersonaCard) -> list[Reason]:
    """The reasons against a conversation by itself: those against each of its replies and, if nobody wrote it as hers,
    those against the whole; each rule once."""
    reasons: dict[str, Reason] = {}
    turns = conversation.messages
    for user, reply in zip(turns[::2], turns[1::2], strict=True):
        for reason in check_reply(user.content, reply.content, conversation.metadata.affection_level, card):
            reasons.setdefault(reason.rule, reason)
    if conversation.metadata.source not in AUTHORED:
        for reason in check_import(conversation, card):
            reasons.setdefault(reason.rule, reason)
    return list(reasons.values())


def check_all(conversations: Sequence[Conversation], card: PersonaCard) -> list[Verdict]:
    """A verdict for each conversation, in order. Of several that say the same, all but the first are duplicates."""
    seen: dict[tuple, str] = {}
    verdicts = []
    for conversation in conversations:
        verdict = Verdict(conversation, check(conversation, card))
        said = (
            conversation.metadata.affection_level,
            *(bare(m.content) or m.content for m in conversation.messages),
        )
        if said in seen:
            verdict.reasons.append(Reason("duplicate", f"says the same as {seen[said]}"))
        seen.setdefault(said, conversation.id)
        verdicts.append(verdict)
    return verdicts


def leave_out_repeats(verdicts: Sequence[Verdict], known: Sequence[Conversation]) -> None:
    """Add the reason "near duplicate" where a conversation that passes is like one of `known`, or like an earlier one
    that stays: a talk that was exported twice, or by both partners."""
    passing = {verdict.conversation.id: verdict for verdict in verdicts if verdict.passes}
    for name, pair in repeats([verdict.conversation for verdict in passing.values()], known).items():
        passing[name].reasons.append(Reason("near duplicate", f"is like {pair.a} ({pair.similarity:.2f})"))


def apply_review(verdicts: Sequence[Verdict], path: Path) -> None:
    """Add what a person said against conversations: a YAML mapping of id to reason."""
    review = yaml.safe_load(path.read_text(encoding="utf-8"))
    for verdict in verdicts:
        if said := review.get(verdict.conversation.id):
            verdict.reasons.append(Reason("reader", said))


def count_by_rule(verdicts: Sequence[Verdict]) -> Counter:
    """How many conversations each rule speaks against; one conversation can count under several."""
    return Counter(rule for verdict in verdicts for rule in {reason.rule for reason in verdict.reasons})


def write_dropped(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write every conversation that does not pass as a JSON line with its reasons."""
    write_atomically(path, "".join(dropped_line(verdict) for verdict in verdicts if not verdict.passes))


def dropped_line(verdict: Verdict) -> str:
    """A conversation and the reasons against it as a JSON line."""
    reasons = [asdict(reason) for reason in verdict.reasons]
    conversation = verdict.conversation.model_dump(exclude_none=True)
    return json.dumps({"reasons": reasons, "conversation": conversation}, ensure_ascii=False) + "\n"
