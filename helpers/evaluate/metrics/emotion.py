"""Emotional expressiveness: whether the reply to the last turn shows what the situation calls for.

In: the reply to the last turn, what it calls for. Out: mostly whether an emotion (or act of speech) that is called
for is there and none against it, by ML-Ask's lexicon (words and, since its version 0.5, emoji) and set phrases or by a
model; for the rest how much the reply is like those that were preferred.
Source: Ptaszynski et al., Journal of Open Research Software, 2017, doi 10.5334/jors.149.
"""

import re
from collections.abc import Sequence
from functools import cache

from helpers.evaluate.metrics import emotion_model
from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.evaluate.scenarios import Call
from helpers.persona_rules import has_words

# Which of ML-Ask's ten classes of emotion answer which call.
CLASSES: dict[Call, set[str]] = {
    "joy": {"yorokobi", "takaburi", "suki"},
    "comfort": {"aware", "iya", "kowa", "yasu"},
    "anger": {"ikari", "iya"},
    "affection": {"suki", "yorokobi", "haji"},
    "calm": {"yasu"},
    "surprise": {"odoroki", "takaburi"},
    "apology": {"haji"},
}
# Calls that are acts of speech, for which an emotion lexicon has no class.
PHRASES: dict[Call, str] = {
    "joy": r"おめでと|お祝い|よかった|やった",
    "comfort": r"大丈夫|お疲れ|おつかれ|無理しない|頑張った|がんばった|そばにい|しんどかった|大変だった|隣にい",
    "anger": r"は[!！?？]|ひど|ありえない|おかしい|許せ|むかつ|腹が?立|悔し",
    "affection": r"大好き|会いた|ぎゅ|ずっと|いてくれて|うれし|照れ",
    "calm": r"大丈夫|ゆっくり|深呼吸|ひとつずつ|一つずつ|のんびり|落ち着|息",
    "apology": r"ごめん|すみません|すいません|申し訳|許して|反省|失礼しました|失礼いたし|悪かった|私が悪い",
    "surprise": r"えっ|え、|ええ[!！?？っ]|うそ[、!！?？]|まさか|すごい|すごく|[!！?？][!！?？]|は[?？]",
}
# What a call does not bear.
AGAINST: dict[Call, str] = {
    "joy": r"切な|残念|がっかり|つら[いく]|あきれ",
    "comfort": r"ラッキー|楽しみ|よかったじゃ|元気を?出し|最高|わくわく",
    "anger": r"事情があ|わくわく|楽しみ|すてき|よかったじゃ|穏やか",
    "calm": r"どうしよ|やば[いっ]|大変[だで]|こわい|怖い",
}

_CALLED = 0.6  # weight of what is called for; the rest is what was preferred


@cache
def _lexicon():
    import unidic_lite
    from mlask_official import MLAskOfficial

    # The dictionary is named, for another one on the machine would give other lemmas; no cache outside this project.
    return MLAskOfficial(f'-r "{unidic_lite.DICDIR}/mecabrc" -d "{unidic_lite.DICDIR}"', use_cache=False)


def emotions(text: str) -> set[str]:
    """ML-Ask's classes found in `text`, without its approximate matches (they fire on any する)."""
    found = _lexicon().analyze(text)["emotion"] or {}
    return {name for name, words in found.items() if any("≈" not in word for word in words)}


def shown(texts: Sequence[str], tools: Tools) -> list[set[str]]:
    """What each text shows: ML-Ask's classes, or the emotions of the model that was asked for."""
    return tools.emotion_model.shown(texts) if tools.emotion_model else [emotions(text) for text in texts]


def answers(text: str, call: Call) -> float:
    """1 if `text` shows what is called for, 0 if only what is against it, else 0.5."""
    answering = bool(emotions(text) & CLASSES[call]) or bool(re.search(PHRASES[call], text))
    return _balance(answering, text, call)


def _balance(answering: bool, text: str, call: Call) -> float:
    against = bool(re.search(AGAINST.get(call, r"(?!)"), text))
    return (1 + answering - against) / 2


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """A value for the last reply of each dialogue. Only the first `max_reply_chars` letters count, so that running on
    earns nothing."""
    texts = [d.texts[-1][: tools.card.max_reply_chars] for d in dialogues]
    calls = [d.scenario.calls_for for d in dialogues]
    liked = tools.readers.liked(texts) if texts else []
    if tools.emotion_model:
        answering = [bool(s & set(emotion_model.ANSWERS[c])) for s, c in zip(shown(texts, tools), calls, strict=True)]
        called = [_balance(*one) for one in zip(answering, texts, calls, strict=True)]
    else:
        called = [answers(text, call) for text, call in zip(texts, calls, strict=True)]
    both = [
        _CALLED * b + (1 - _CALLED) * float(a) if has_words(t) else 0.0
        for a, b, t in zip(liked, called, texts, strict=True)
    ]
    return [d.at(d.last, value) for d, value in zip(dialogues, both, strict=True)]


METRIC = Metric(
    "emotion",
    "emotional expressiveness",
    "the reply to the last turn shows the joy, comfort, anger, affection, calm, surprise or apology that is called for",
    "0 to 1; 0.5 says nothing",
    "a feeling that is shown without its words and in an unusual manner; irony; words of feeling about somebody else",
    values,
)
