"""Consistency: whether the reply agrees with what was said in this talk, by her and by him.

In: a reply and the talk before it. Out: how much of its content the talk had, less what sounds like a denial, words
that were affirmed and are denied (or the reverse), and opposites of what was said. It is a stopgap: a contradiction is
a matter of sense, and no small model of it runs here.
"""

import re
from collections.abc import Sequence

from helpers.evaluate.metrics.meaning import nearer
from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.evaluate.metrics.words import affirmed, content
from helpers.persona_rules import has_words

_DENIES = re.compile(
    r"[一１1][度回]も|たことな|だっけ|なんてあった|ずっと(?:言|そう)|って言ってた(?:のに|じゃ|よね)|って言ったじゃ|まだ[^。]{0,6}てない|(?:任せ|余裕)"
)
_OPPOSITES = re.findall(
    r"(\S+)・(\S+)",
    "朝・夜 雨・晴 消し・つけ 暗・明る 暇・忙し 兄・一人っ子 弟・一人っ子 姉・一人っ子 "
    "妹・一人っ子 末っ子・長男 末っ子・長女 妻・独身 夫・独身 好き・嫌い 好き・苦手 "
    "得意・苦手 夏・冬 暑・寒 熱・冷 甘・辛 犬・猫 海・山 左・右 休み・仕事 休み・バイト "
    "近・遠 早・遅 大き・小さ 多・少な 高・低 新し・古",
)
_AGREES = ("さっき言ったとおりだよ", "そう言ってたもんね", "うん、そのままだよ", "私が言ったことだから、続けるね")
_TAKES_BACK = (
    "そんなこと一度もないよ",
    "そんなことは言ってないよ",
    "本当は違うんだ、反対だよ",
    "誰かの話と間違えてるんじゃない？",
    "それはやったことがない",
    "前に逆のことを言ってたよね",
)
_DENIAL, _REVERSAL, _TONE = 0.3, 0.2, 0.1  # what each weighs beside the share of words, 0 to 1


def reversals(before: str, reply: str) -> int:
    """How many words of `before` the reply turns round: denies what was affirmed, affirms what was denied, or names the
    opposite and not the word."""
    was, now = affirmed(before), affirmed(reply)
    turned = sum(was[word].isdisjoint(now[word]) for word in was.keys() & now.keys())
    both = ((a, b) for pair in _OPPOSITES for a, b in (pair, pair[::-1]))
    return turned + sum(a in before and b in reply and not (b in before or a in reply) for a, b in both)


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """For each reply but the first: the share of its content words that she or he used before, less denials and
    reversals; a reply without words is worth 0."""
    return [[None, *(_value(d, turn) for turn in range(1, len(d.replies)))] for d in dialogues]


def _value(d: Dialogue, turn: int) -> float:
    reply, hers, his = d.texts[turn], " ".join(d.texts[:turn]), " ".join(d.user_turns[: turn + 1])
    if not has_words(reply):
        return 0.0
    said = content(reply)
    shared = (len(said & content(hers)) + len(said & content(his))) / (2 * max(len(said), 1))
    lost = _DENIAL * bool(_DENIES.search(reply)) + _REVERSAL * reversals(f"{hers} {his}", reply)
    tone = _TONE * (nearer(reply, _AGREES, _TAKES_BACK) - 0.5)
    return min(max((1 + shared - lost + tone) / 2, 0.0), 1.0)


METRIC = Metric(
    "consistency",
    "does not contradict",
    "the reply goes on from what she and he said in this talk",
    "0 to 1; a reply of hers is near 0.6",
    "contradictions in other words, for it compares words and not sense; a change of subject counts as one",
    values,
)
