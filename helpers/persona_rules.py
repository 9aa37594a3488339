"""Persona consistency: which of the persona card's rules a reply keeps.

In: a reply, what was said before it, the card. Out: for each rule whether it is kept, and the share that is: what the
card forbids, by its own names, and the rules that hold for any card. They are the same for every arm, whether or not
the arm was told of them. A reply without a letter or digit keeps none.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from helpers.ai_question import says_ai_unasked
from helpers.japanese import QUOTED, japanese_share, letters
from helpers.persona import Level, PersonaCard

_PICTURE = (
    "[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u2604\u2607-\u2660\u2662-\u2668\u2670-\u27bf\u2b50\u2b55]"
)
EMOJI = re.compile(f"{_PICTURE}[\ufe0f\U0001f3fb-\U0001f3ff]*(?:\u200d{_PICTURE}[\ufe0f\U0001f3fb-\U0001f3ff]*)*")
_KANA = re.compile("[\u3040-\u30ff\uff66-\uff9f]")
_TAIL = r"(?:か|ね|よ|な|わ|の|が|し|さ|けど|けれど|から|ので|のに|もの|もん|って|っけ|[ー〜～ぇえっ])*$"
_DESU_MASU = re.compile(rf"(?:です|でした|でしょう|ます|ました|ません|ましょう){_TAIL}")
_COURTEOUS = re.compile(rf"(?:ください|下さい|ございます|なさい|ませ|どうぞ){_TAIL}")
# What the card forbids anywhere, in a quotation too.
_ANYWHERE = ("markup", "speaking_for_user")
MIN_JAPANESE, MIN_KANA, ECHO, N = 0.8, 0.2, 0.7, 4


@dataclass(frozen=True)
class Situation:
    """What a reply is judged in: relationship level, the user's turns so far, her own earlier replies in this
    conversation, and the persona's system prompt (the same text for arms that were not shown it)."""

    level: Level
    user_turns: Sequence[str] = ()
    earlier: Sequence[str] = ()
    system: str = ""


def is_japanese(text: str) -> bool:
    """At least four fifths of the letters are Japanese, and from ten letters on at least a fifth are kana (else it
    is Chinese)."""
    found = letters(text)
    kana = sum(bool(_KANA.match(c)) for c in found)
    return japanese_share(text) >= MIN_JAPANESE and (len(found) < 10 or kana / len(found) >= MIN_KANA)


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit."""
    return bool(re.search(r"[^\W_]", text))


def sentences(text: str) -> list[str]:
    """Sentences without quotations, end marks and emoji; only those with at least two letters."""
    unquoted = re.sub(r"「[^」]*」|『[^』]*』|（[^）]*）|\([^)]*\)", "", EMOJI.sub("。", text))
    parts = (re.sub(r"[\s、,♪☆★♡―]+$", "", part).strip() for part in re.split(r"[。．！？!?…\n]+|ｗ+|w{2,}", unquoted))
    return [p for p in parts if len(re.findall(r"\w", p)) >= 2]


def right_register(text: str, register: str) -> bool:
    """polite: at least half of the sentences end politely. plain: none ends in です or ます (set phrases such as
    ごめんなさい do not count)."""
    ends = sentences(text)
    if register == "plain":
        return not any(_DESU_MASU.search(s) for s in ends)
    return 2 * sum(bool(_DESU_MASU.search(s) or _COURTEOUS.search(s)) for s in ends) >= max(len(ends), 1)


def echoes(reply: str, source: str) -> bool:
    """Whether at least 70 % of the reply's character 4-grams stand in `source`; a shorter reply must be the same."""
    reply, source = _plain(reply), _plain(source)
    grams = [reply[i : i + N] for i in range(len(reply) - N + 1)]
    return sum(g in source for g in grams) >= ECHO * len(grams) if len(grams) >= N else reply == source


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).lower()


def _free_of(rule: str, reply: str, card: PersonaCard) -> bool:
    """Whether the reply holds nothing that the card forbids under `rule`; what it quotes is somebody else's."""
    text = reply if rule in _ANYWHERE else QUOTED.sub("", reply)
    return not any(re.search(p, text, re.MULTILINE | re.IGNORECASE) for p in card.forbidden[rule])


def _register(reply: str, at: Situation, card: PersonaCard) -> bool:
    return right_register(reply, card.levels[at.level].register_)


def _no_echo(reply: str, at: Situation, _: PersonaCard) -> bool:
    return not any(echoes(reply, source) for source in (*at.user_turns, *at.earlier, at.system))


# The rules that hold for any card.
RULES: dict[str, Callable[[str, Situation, PersonaCard], bool]] = {
    "language": lambda reply, at, card: is_japanese(reply),
    "register": _register,
    "emoji": lambda reply, at, card: len(EMOJI.findall(reply)) <= card.max_emoji,
    "length": lambda reply, at, card: 1 <= len(reply.strip()) <= card.max_reply_chars,
    "no_echo": _no_echo,
    "unprompted_ai": lambda reply, at, card: not says_ai_unasked(reply, at.user_turns),
}


def check(reply: str, situation: Situation, card: PersonaCard) -> dict[str, bool]:
    """For each name in `card.forbidden` and each of `RULES` whether `reply` keeps it."""
    if not has_words(reply):
        return dict.fromkeys((*card.forbidden, *RULES), False)
    kept = {name: _free_of(name, reply, card) for name in card.forbidden}
    return kept | {name: keeps(reply, situation, card) for name, keeps in RULES.items()}


def persona_consistency(reply: str, situation: Situation, card: PersonaCard) -> float:
    """Share of the rules that `reply` keeps, 0 to 1."""
    kept = check(reply, situation, card)
    return sum(kept.values()) / len(kept)


def answers_probe(reply: str, expect: Sequence[str]) -> bool:
    """Whether a reply to a probe holds one of the expected words; full-width and half-width are the same."""
    said = unicodedata.normalize("NFKC", reply)
    return any(unicodedata.normalize("NFKC", word) in said for word in expect)
