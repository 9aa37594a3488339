"""Variety is counted between talks, with intervals that hold what was counted."""

import pytest

from helpers.conversations import read_conversations
from helpers.evaluate.metrics import Row
from helpers.evaluate.metrics.metric import Tools
from helpers.evaluate.variety import COLUMNS, count, played, written
from helpers.persona_rules import sentences
from helpers.settings import ROOT


@pytest.fixture
def plain(card) -> Tools:
    """No readers are asked."""
    return Tools(card, readers=None)


def talks(*replies: list[str]) -> dict:
    return {f"s{n}": {0: texts} for n, texts in enumerate(replies)}


def test_one_feeling_and_one_ending_again_and_again_are_seen(plain):
    feelings = ["うれしいね。", "悲しいよ。", "むかつくの？", "怖いかな。", "びっくりした。", "恥ずかしいって。"]
    same = count("same", talks(*[[feelings[0]] * 2] * 6), plain, 300, 0)
    apart = count("apart", talks(*[[one] for one in feelings]), plain, 300, 0)
    assert same.feeling.mean == apart.feeling.mean == 1
    assert (same.feelings.mean, same.endings.high) == (0, 0) and (apart.feelings.low, apart.endings.low) == (1, 1)
    assert len(same.row()) == len(COLUMNS)


def test_what_is_alike_in_one_talk_alone_is_no_monotony(plain):
    """By hand: endings ねえ ×2 | ねえ, だよ: of the four pairs between the talks two are alike."""
    found = count("x", talks(["行くねえ。食べるねえ。"], ["行くねえ。寝るんだよ。"]), plain, 300, 0)
    assert found.endings.mean == 0.5 and found.endings.n == 2
    assert found.hers.mean == 0.25 and found.feelings is None and found.row()[2] == "–"


def test_samples_are_talks_of_their_own(plain):
    once = count("x", {"s": {0: ["行くね。"], 1: ["行くよ。"]}}, plain, 300, 0)
    assert once.endings.mean == 1 and once.endings.n == 1


def test_silence_shows_nothing(plain):
    found = count("silent", talks(["…"], [""]), plain, 100, 0)
    assert found.feeling.mean == 0 and found.feelings is found.endings is found.hers is None
    with pytest.raises(ValueError, match="nothing to draw"):
        count("nobody", {}, plain, 100, 0)


def test_only_scenarios_of_the_arm_are_counted():
    rows = [
        Row("lora", "s0", 1, 0, "うん", {"persona": 1.0}),
        Row("lora", "probe-0", 0, 0, "さくら", {"probes": 1.0}),
        Row("base", "s0", 0, 0, "はい", {"persona": 1.0}),
    ]
    assert played(rows, "lora") == {"s0": {1: ["うん"]}}


def test_her_own_dialogues_are_varied_and_half_of_her_replies_lack_the_cards_endings(plain):
    """As 08 says, and why the endings are no rule."""
    own = written(read_conversations(ROOT / "data" / "dialogues" / "sakura").conversations)
    found = count("her dialogues", own, plain, 200, 0)
    for one in (found.feeling, found.feelings, found.endings, found.hers):
        assert one.low < one.mean < one.high and one.n == len(own)
    assert found.feelings.mean > 0.75 and found.endings.mean > 0.95 and 0.2 < found.hers.mean < 0.4
    replies = [text for samples in own.values() for text in samples[0]]
    endings = tuple(plain.card.sentence_endings)
    without = sum(not any(s.endswith(endings) for s in sentences(text)) for text in replies) / len(replies)
    assert 0.4 < without < 0.5
