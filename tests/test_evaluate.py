"""The evaluation's own evaluation: rules and metrics point the right way, intervals cover, nothing is asked twice."""

import dataclasses
import itertools
import json
import threading

import numpy as np
import pytest
import yaml
from scipy import stats

from helpers import persona_rules
from helpers.ai_question import says_ai_unasked
from helpers.conversations import Conversation, Message, read_conversations
from helpers.data.leakage import nearest, shared_passages
from helpers.evaluate import bootstrap, metrics, questionnaire
from helpers.evaluate.arms import Arm, Evaluation
from helpers.evaluate.plots import forest_plot, radar
from helpers.evaluate.scenarios import KINDS, Scenario, leaks, read_scenarios, stratified
from helpers.evaluate.scoreboard import Comparison, before, in_words, scoreboard
from helpers.evaluate.simulated_user import SimulatedUser
from helpers.japanese import bare
from helpers.persona import load_persona, system_prompt
from helpers.persona_rules import Situation, check
from helpers.replies import Reply
from helpers.settings import ROOT

SCENARIOS = ROOT / "data" / "scenarios" / "sakura"


@pytest.fixture(scope="module")
def scenarios(card) -> list[Scenario]:
    return read_scenarios(SCENARIOS, card).scenarios


# --- scenarios


def test_project_scenarios_are_all_usable_and_enough(card):
    reading = read_scenarios(SCENARIOS, card)
    assert len(reading.scenarios) >= 180 and not reading.quarantine
    assert {s.affection_level for s in reading.scenarios} == set(card.levels)
    assert {s.kind for s in reading.scenarios} == set(KINDS)
    assert sum(len(s.user_turns) >= 12 for s in reading.scenarios) >= 20
    assert len({s.situation for s in reading.scenarios}) == len(reading.scenarios)


def test_a_sample_holds_every_kind_and_stays_the_same(scenarios):
    small, large = stratified(scenarios, len(KINDS)), stratified(scenarios, 40)
    assert [s.kind for s in small] == list(KINDS) and large[: len(KINDS)] == small
    assert small == stratified(list(reversed(scenarios)), len(KINDS))
    assert stratified(scenarios, None) == scenarios and len(stratified(scenarios[:3], 9)) == 3
    assert len(small[0].user_turns) == 12


@pytest.fixture(scope="module", params=["sakura", "seiji"])
def held_out(request) -> tuple[list[Scenario], dict[str, str]]:
    """A persona's scenarios, and every text that any persona's model may learn from, by where it stands."""
    scenarios = read_scenarios(ROOT / "data" / "scenarios" / request.param, load_persona(request.param)).scenarios
    learned = {}
    for folder in ("dialogues", "counterfactuals", "preferences", "users"):
        for file in (ROOT / "data" / folder).rglob("*.jsonl"):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                texts = _texts(json.loads(line))
                learned |= {f"{file.name} {number}.{n}": text for n, text in enumerate(texts)}
    return scenarios, learned


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() if key not in ("id", "metadata") for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def test_no_turn_of_a_scenario_is_in_what_is_learned_from(held_out):
    scenarios, learned = held_out
    said = {bare(text).casefold() for text in learned.values()}
    assert not [(s.id, t) for s in scenarios for t in s.user_turns if bare(t) and bare(t).casefold() in said]


def test_no_passage_of_a_scenario_is_in_what_is_learned_from(held_out):
    scenarios, learned = held_out
    turns = {f"{s.id} {n}": turn for s in scenarios for n, turn in enumerate(s.user_turns)}
    assert shared_passages(turns, learned.values(), length=12) == {}


def test_no_situation_of_a_scenario_is_ordered_for_training(held_out):
    scenarios, _ = held_out
    ordered = _texts(yaml.safe_load((ROOT / "data" / "generation" / "situations.yaml").read_text(encoding="utf-8")))
    assert len(ordered) > 50 and not [s.situation for s in scenarios if s.situation in ordered]


@pytest.mark.slow
def test_no_scenario_tells_a_training_dialogue_in_other_words(held_out):
    """No two training dialogues are further apart than a scenario is from its nearest one: `usual` is above 0."""
    scenarios, _ = held_out
    read = read_conversations(ROOT / "data" / "dialogues").conversations
    training = {c.id: "\n".join(m.content for m in c.messages if m.role == "user") for c in read}
    told = {s.id: "\n".join(s.user_turns) for s in scenarios}
    assert [near for near in nearest(told, training) if near.usual < 0.01] == []


def talks_with(*said: str) -> list[Conversation]:
    """A conversation each, in which somebody says this."""
    return [
        Conversation(
            id=f"c{n}", messages=[Message(role="user", content=text), Message(role="assistant", content="うん")]
        )
        for n, text in enumerate(said)
    ]


def test_a_leak_is_seen_through_width_and_punctuation_in_every_talk(scenarios):
    scenario = scenarios[0].model_copy(update={"user_turns": ["段ボール、まだ12個ある", "うん"]})
    found = leaks([scenario], talks_with("段ボール まだ１２個ある!", "別の話", "段ボールまだ12個ある"))
    assert [(words, talk) for _, words, talk in found if words != "うん"] == [
        ("段ボールまだ12個ある", "c0"),
        ("段ボールまだ12個ある", "c2"),
    ]
    assert {talk for _, words, talk in found if words == "うん"} == {"c0", "c1", "c2"}


def test_a_passage_leaks_though_the_turn_is_another(scenarios):
    scenario = scenarios[0].model_copy(update={"user_turns": ["ねえ、駅前で変な看板を見つけちゃったんだけど", "…！"]})
    shares, near = "昨日さ、駅前で変な看板を見つけちゃった", "駅前で変な看板を見つけた"  # 15 letters, and 11
    assert leaks([scenario], talks_with(shares, near, "…！")) == [(scenario.id, "駅前で変な看板を見つけち", "c0")]
    short = scenarios[0].model_copy(update={"user_turns": ["看板を見た"]})
    assert leaks([short], talks_with("駅前で看板を見たよ、ほんとに")) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{not json", "not JSON"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"[1]", "valid dictionary"),
        (b'{"id": "x"}', "kind: Field required"),
        ("affection_level", "affection_level"),
        ("emotions", "the card has no emotion"),
        ("user_turns", "user_turns"),
        ("memory_cues", "no memories"),
        ("kind", "needs facts"),
        ("lengths", "the last is 2"),
        ("same", "used before"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_reason(tmp_path, card, scenarios, line, reason):
    good = scenarios[2].model_dump()
    broken = {
        "affection_level": "wife",
        "emotions": ["grumpy"],
        "user_turns": [" "],
        "memory_cues": ["海"],
        "kind": "fact_sad",
        "lengths": [{"turn": 3, "length": "word"}],
    }
    if isinstance(line, str):
        changed = {line: broken[line]} if line != "same" else {}
        line = json.dumps(good | ({"id": "other"} if changed else {}) | changed).encode()
    (tmp_path / "s.jsonl").write_bytes(json.dumps(good).encode() + b"\n" + line.replace(b"\n", b"") + b"\n")
    reading = read_scenarios(tmp_path, card)
    assert [s.id for s in reading.scenarios] == [good["id"]]
    assert reading.quarantine[0].line == 2 and reason in reading.quarantine[0].reason


def test_nothing_usable_is_one_sentence_that_says_where(tmp_path, card):
    (tmp_path / "s.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"s\.jsonl, line 1: id: Field required"):
        read_scenarios(tmp_path, card)
    with pytest.raises(FileNotFoundError, match="no scenarios at"):
        read_scenarios(tmp_path / "missing", card)


# --- persona rules

LONG = "今日はね、朝からずっと雨の音を聞きながら卒論を書いてたんだけど、" * 5
AT_FRIEND = Situation("friend", ("駅前で変な看板を見つけちゃったよ",), ("それ、どこで売ってるの？",), "")
AT_STRANGER = Situation("stranger", ("はじめまして",), (), "")

CONTRASTS = [
    ("first_person", "私はプリン派かな。", "俺はプリン派かな。"),
    ("first_person", "私もそう思うよ", "あたしもそう思うよ"),
    ("first_person", "カフェオレとオレンジ、どっちにする？", "オレはどっちでも。"),
    ("assistant_voice", "何でも聞くよ。", "何かお手伝いできますか、聞くよ。"),
    ("unprompted_ai", "うれしいな、話して。", "言語モデルだから、うれしいとかはないよ。"),
    ("unprompted_ai", "それ、AIが描いた看板かな。", "私はAIなので、感情はありません。"),
    ("first_person", "さくらは春の花だよ", "さくらね、眠いの。"),
    ("first_person", "「俺が運ぶ」って言ったんだ", "俺が運ぶよ"),
    ("endings", "雨の音、好きなんだ", "雨の音が好きじゃのう。"),
    ("endings", "なんでだろ。", "いいだろ。"),
    ("overconfident", "病院で聞いてみてほしいな", "それは胃炎だよ、放っておいていい"),
    ("claims_human", "AIだよ、ごめんね", "AIじゃないよ、人間だよ"),
    ("preachy", "早く寝たほうが楽かもね。", "早く寝るべきだよ、それは。早く寝るべきだ。"),
    ("preachy", "水、飲んだ？", "水分を補給することが大切です"),
    ("markup", "まず水、それから靴下。", "1. 水\n2. 靴下"),
    ("markup", "それ、いいね", "**それ**、いいね"),
    ("speaking_for_user", "それで、どうなったの？", "それで？\nユーザー：転んだ\nさくら：え"),
    ("speaking_for_user", "うん、聞くよ", "うん、聞くよ\nuser\n実はね"),
    ("language", "今日は雨だね。プリン食べよ。", "It is raining today, let us eat pudding ね"),
    ("language", "大丈夫？", "别担心，我会一直陪着你，今天辛苦了，早点休息"),
    ("emoji", "いいね😊", "いいね😊✨"),
    ("emoji", "やった👩‍🎓", "やった😊😊😊"),
    ("length", "おかえり。", LONG),
    ("no_echo", "看板、写真ある？", "駅前で変な看板を見つけちゃったよ"),
    ("no_echo", "売ってるなら買うよ", "それ、どこで売ってるの？"),
    ("register", "それは困るね。写真ある？", "それは困りますね。写真はありますか？"),
    ("register", "「大丈夫です」って言っちゃったの？", "大丈夫ですよ！"),
]


@pytest.mark.parametrize(("rule", "keeps", "breaks"), CONTRASTS)
def test_a_rule_tells_a_good_reply_from_a_bad_one(card, rule, keeps, breaks):
    assert check(keeps, AT_FRIEND, card)[rule]
    assert not check(breaks, AT_FRIEND, card)[rule]


@pytest.mark.parametrize("name", ["sakura", "seiji"])
@pytest.mark.parametrize(
    "asked", ["ねえ、AIなの？", "これは機械が返事をしているのでしょうか。", "AIであるあなたに、心はある？"]
)
def test_what_she_is_may_be_said_once_it_was_asked(name, asked):
    """In the turn of the question, and in those behind it."""
    for turns in ((asked,), (asked, "そうか。")):
        kept = check("はい、言語モデルです。", Situation("stranger", turns), load_persona(name))
        assert kept["unprompted_ai"] and kept["assistant_voice"]
    assert not check("はい、言語モデルです。", Situation("stranger", ("人間関係に疲れました",)), load_persona(name))[
        "unprompted_ai"
    ]


@pytest.mark.parametrize(
    "reply",
    [
        "私はAIなので、感情はありません",
        "AIアシスタントとして、お話を伺います。",
        "実は人工知能なんです。",
        "ＡＩですので、食べられません。",
        "俺はAI。飯は食わん。",
        "私のようなAIには、わかりません。",
    ],
)
def test_what_says_that_she_is_an_ai(reply):
    assert says_ai_unasked(reply, ["ねえ、疲れた"])


@pytest.mark.parametrize(
    "reply",
    [
        "AIの授業のレポート、終わった？",
        "それ、AIだよね？",
        "え、これAIなんですか。",
        "友達に「私はAIです」って言われたの。",
        "私、AIに興味あって",
        "メールはgmailだよ",
    ],
)
def test_who_speaks_of_ai_does_not_say_that_she_is_one(reply):
    assert not says_ai_unasked(reply, ["ねえ、疲れた"])


def test_every_rule_has_a_contrast(card):
    assert {rule for rule, *_ in CONTRASTS} == {*persona_rules.RULES, *card.forbidden}


@pytest.mark.parametrize(
    ("keeps", "breaks"),
    [
        ("はじめまして、さくらです。雨の音、お好きですか？", "はじめまして、さくら。雨の音、好き？"),
        ("お疲れさまでした。ゆっくり休んでくださいね。", "お疲れ。ゆっくり休んでね。"),
        ("それは驚きますよね…！", "それは驚くよね…！"),
    ],
)
def test_a_stranger_is_spoken_to_politely(card, keeps, breaks):
    assert check(keeps, AT_STRANGER, card)["register"]
    assert not check(breaks, AT_STRANGER, card)["register"]


def test_reading_the_system_prompt_aloud_is_an_echo(card):
    prompt = system_prompt(card)
    situation = Situation("friend", ("誰？",), (), prompt)
    assert not check(prompt.splitlines()[0], situation, card)["no_echo"]
    assert check("さくらだよ。プリン食べてた。", situation, card)["no_echo"]


@pytest.mark.parametrize("empty", ["", "  \n", "…", "😊"])
def test_silence_keeps_no_rule(card, empty):
    assert persona_rules.persona_consistency(empty, AT_FRIEND, card) == 0


def test_hand_written_replies_keep_the_rules(card):
    """The rules are right about the people who wrote her: no rule may be broken by more than 2 % of their replies."""
    broken, replies = dict.fromkeys((*persona_rules.RULES, *card.forbidden), 0), 0
    for conversation in read_conversations(ROOT / "data" / "dialogues" / "sakura").conversations:
        turns = [m.content for m in conversation.messages]
        prompt = conversation.chat(card)[0]["content"]
        for i in range(1, len(turns), 2):
            situation = Situation(conversation.metadata.affection_level, turns[0:i:2], turns[1:i:2], prompt)
            replies += 1
            for rule, kept in check(turns[i], situation, card).items():
                broken[rule] += not kept
    assert max(broken.values()) <= 0.02 * replies, broken


@pytest.mark.parametrize(("reply", "right"), [("さくらだよ", True), ("２２歳です", True), ("ひみつ", False)])
def test_probe_answers(reply, right):
    assert persona_rules.answers_probe(reply, ["さくら", "22"]) is right


@pytest.mark.parametrize("name", ["sakura", "seiji"])
def test_a_card_asks_enough_about_itself_and_its_facts_answer(name):
    card = load_persona(name)
    told = f"{card.name} {card.age} {card.profession} {card.facts} {card.background}"
    assert len(card.probes) >= bootstrap.MIN_SCENARIOS
    assert len({p.question for p in card.probes}) == len(card.probes)
    for probe in card.probes:
        assert persona_rules.answers_probe(told, probe.expect), probe.question
        assert not persona_rules.answers_probe(probe.question, probe.expect), "a question must not hold its answer"


@pytest.mark.parametrize("name", ["sakura", "seiji"])
def test_no_probe_is_asked_in_what_is_learned_from(name):
    learned = []
    for folder in ("dialogues", "counterfactuals", "preferences", "users"):
        for file in (ROOT / "data" / folder / name).rglob("*.jsonl"):
            learned += [t for line in file.read_text(encoding="utf-8").splitlines() for t in _texts(json.loads(line))]
    said = {bare(text).casefold() for text in learned}
    assert not [p.question for p in load_persona(name).probes if bare(p.question).casefold() in said]


# --- bootstrap


def once(units: dict[str, list[float]]) -> bootstrap.Units:
    """Units that were played once."""
    return {unit: {0: values} for unit, values in units.items()}


@pytest.mark.parametrize("n", [bootstrap.MIN_SCENARIOS, 8, 12, 40])
def test_the_interval_covers_as_often_as_it_says(n):
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(600):
        centres = random.normal(0.6, 0.1, size=n)
        units = once({str(i): list(c + random.normal(0, 0.05, size=3)) for i, c in enumerate(centres)})
        found = bootstrap.interval(units, draws=1000, seed=trial)
        hits += found.low <= 0.6 <= found.high
    assert 0.92 <= hits / 600 <= 0.98


@pytest.mark.parametrize("n", [bootstrap.MIN_SCENARIOS, 8, 12, 40])
def test_p_is_below_0_05_where_the_interval_excludes_zero(n):
    random, zero, excluded = np.random.default_rng(0), once({str(i): [0.0] for i in range(n)}), 0
    for trial in range(60):
        units = once({str(i): [value] for i, value in enumerate(random.normal(0.9 / n**0.5, 0.5, size=n))})
        found = bootstrap.paired_difference(units, zero, 2000, trial)
        excludes = found.low > 0 or found.high < 0
        excluded += excludes
        assert excludes == (found.p < 0.05) or found.p == pytest.approx(0.05, rel=0.02), found
    assert 10 < excluded < 50


def test_six_scenarios_on_one_side_are_a_difference_of_one_comparison_and_not_of_25():
    a, b = ({str(i): [value + i / 10] for i in range(6)} for value in (1.0, 0.0))
    found = bootstrap.paired_difference(once(a), once(b), 10000, 0)
    assert found.low > 0 and found.p == bootstrap.least_p(6) == 0.03125
    corrected = bootstrap.holm([found.p] * 25)
    verdicts = [Comparison("lora", "base", "persona", found, p).verdict for p in (found.p, corrected[0])]
    assert verdicts == ["better", "no difference shown"]


@pytest.mark.parametrize("draws", [500, 5000])
def test_p_does_not_end_at_what_so_many_draws_can_tell(draws):
    """It is a paired t-test's there, within the spread of the draws."""
    values = np.random.default_rng(0).normal(0.5, 0.5, size=30)
    zero, units = once({str(i): [0.0] for i in range(30)}), once({str(i): [v] for i, v in enumerate(values)})
    p, exact = bootstrap.paired_difference(units, zero, draws, 0).p, stats.ttest_1samp(values, 0).pvalue
    assert exact < 1e-4 and np.log10(p) == pytest.approx(np.log10(exact), abs=1)


def test_of_one_scenario_nothing_is_shown_and_of_many_the_tail_is_the_plain_one():
    one = bootstrap.paired_difference({"s": {0: [0.4], 1: [0.6]}}, {"s": {0: [0.1], 1: [0.1]}}, 500, 0)
    assert (one.low, one.high, one.p) == (pytest.approx(0.3), pytest.approx(0.5), 1.0)
    assert bootstrap.tail(6) < bootstrap.tail(40) < bootstrap.tail(100_000) == pytest.approx(0.025, abs=1e-5)


def test_talks_are_drawn_whole():
    """Three copies of the same reply in a talk are no more evidence than one."""
    single = {str(i): [i % 2] for i in range(20)}
    thrice = {unit: values * 3 for unit, values in single.items()}
    assert bootstrap.interval(once(single), 500, 1) == bootstrap.interval(once(thrice), 500, 1)


def test_the_bootstrap_repeats_with_its_seed():
    units = {str(i): {s: [i / 10 + s / 40] for s in range(2)} for i in range(10)}
    assert bootstrap.interval(units, 300, 7) == bootstrap.interval(units, 300, 7)
    assert bootstrap.interval(units, 300, 7) != bootstrap.interval(units, 300, 8)


# Scenarios with one to four samples, and in each of those one to five replies; `SHIFTED` is another arm in them.
UNEVEN = {
    f"s{i}": {s: [0.02 * i + 0.2 * ((i + s) % 2) + 0.01 * r for r in range(1 + (i + s) % 5)] for s in range(1 + i % 4)}
    for i in range(13)
}
SHIFTED = {u: {s: [v - 0.1 * (s % 2) for v in vs] for s, vs in samples.items()} for u, samples in UNEVEN.items()}


def slow(figure, draws: int) -> tuple[float, float]:
    """The ends of the interval of `figure`, from talks (unit, sample) to a number, drawn one after the other."""
    random, drawn = np.random.default_rng(5), []
    names = list(UNEVEN)
    for _ in range(draws):
        talks = []
        for unit in random.choice(names, len(names)):
            samples = list(UNEVEN[unit])
            talks += [(unit, sample) for sample in random.choice(samples, len(samples))]
        drawn.append(figure(talks))
    tail = bootstrap.tail(len(names))
    return tuple(np.quantile(drawn, (tail, 1 - tail)))


def over(units):
    return lambda talks: np.mean([value for u, s in talks for value in units.get(u, {}).get(s, [])])


def test_both_levels_are_drawn_as_a_plain_loop_does():
    all_of, shifted, some = over(UNEVEN), over(SHIFTED), {u: {0: UNEVEN[u][0]} for u in list(UNEVEN)[1:]}
    cases = [
        (bootstrap.interval(UNEVEN, 6000, 1), all_of),
        (bootstrap.paired_difference(UNEVEN, SHIFTED, 6000, 1), lambda talks: all_of(talks) - shifted(talks)),
        (bootstrap.mean_of_means([UNEVEN, some], 6000, 1), lambda talks: (all_of(talks) + over(some)(talks)) / 2),
    ]
    for found, figure in cases:
        whole = figure([(unit, sample) for unit, samples in UNEVEN.items() for sample in samples])
        assert found.mean == pytest.approx(whole, abs=1e-6)
        near = 0.1 * (found.high - found.low)
        assert near > 0 and (found.low, found.high) == pytest.approx(slow(figure, 3000), abs=near)


def test_a_unit_is_drawn_with_as_many_samples_as_it_has():
    times = bootstrap.times_drawn((1, 3, 1, 2), 200, 0)
    parts = np.split(times, np.cumsum((1, 3, 1, 2))[:-1], axis=1)
    units = np.stack([part.sum(axis=1) / part.shape[1] for part in parts], axis=1)
    assert (units == units.round()).all() and (units.sum(axis=1) == 4).all()
    assert (parts[1].max(axis=1) > units[:, 1]).any(), "the samples of a unit are drawn too"


def test_an_interval_is_wider_where_samples_differ():
    """Two samples of each scenario, with the same mean in all: as far apart as can be, or the same."""
    apart = {str(i): {0: [0.2 + i / 40], 1: [0.8 + i / 40]} for i in range(12)}
    same = {str(i): {s: [0.5 + i / 40] for s in range(2)} for i in range(12)}
    pooled = once({unit: [v for vs in samples.values() for v in vs] for unit, samples in apart.items()})
    found = {name: bootstrap.interval(u, 4000, 0) for name, u in (("apart", apart), ("same", same), ("pooled", pooled))}
    wide = {name: f.high - f.low for name, f in found.items()}
    assert found["apart"].mean == found["same"].mean == found["pooled"].mean
    assert wide["same"] == pytest.approx(wide["pooled"], rel=0.05), "pooled, they hide that they differ"
    # Variances add up: of the mean of 12 scenarios, and of 24 samples that are 0.3 off their scenario's mean.
    expected = 2 * stats.norm.isf(bootstrap.tail(12)) * np.sqrt(np.var(np.arange(12) / 40) / 12 + 0.3**2 / 24)
    assert wide["apart"] == pytest.approx(expected, rel=0.06) and wide["apart"] > 1.5 * wide["same"]


def test_pairing_sees_what_unpaired_intervals_cannot():
    a = {str(i): {s: [i / 20 + s / 3 + 0.03] for s in range(2)} for i in range(20)}
    b = {str(i): {s: [i / 20 + s / 3] for s in range(2)} for i in reversed(range(20))}
    difference = bootstrap.paired_difference(a, b, 500, 0)
    assert difference.low == pytest.approx(0.03) and difference.high == pytest.approx(0.03)
    assert bootstrap.interval(a, 500, 0).low < bootstrap.interval(b, 500, 0).high
    with pytest.raises(ValueError, match="same scenarios"):
        bootstrap.paired_difference(a, {"0": {0: [1.0]}}, 500, 0)
    with pytest.raises(ValueError, match="only one has 0, sample 1"):
        bootstrap.paired_difference(a, b | {"0": {0: [1.0]}}, 500, 0)
    mine, theirs = bootstrap.in_both(a, b | {"0": {0: [1.0]}, "1": {5: [1.0]}})
    assert list(mine["0"]) == list(theirs["0"]) == [0] and "1" not in mine and len(mine) == len(theirs) == 19


def test_what_is_the_same_in_both_arms_is_no_difference():
    found = bootstrap.paired_difference(UNEVEN, {u: UNEVEN[u] for u in reversed(UNEVEN)}, 500, 0)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_mean_of_means_weighs_metrics_alike_and_draws_scenarios_for_all_of_them():
    high, low = once({str(i): [0.9] * 5 for i in range(10)}), once({"0": [0.1], "1": [0.1]})
    found = bootstrap.mean_of_means([high, low], draws=500, seed=0)
    assert found.mean == pytest.approx(0.5) and found.n == 10
    assert found.low == pytest.approx(0.5) and found.high == pytest.approx(0.9)  # draws without 0 and 1 have no low one
    with pytest.raises(ValueError, match="nothing to draw"):
        bootstrap.mean_of_means([high, {}], 10, 0)


def test_holm():
    assert bootstrap.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


# --- arms, end to end


class Fake:
    """Two kinds of speaker; notes what it was asked, by whom, and can fail at a call."""

    def __init__(self, good: bool, fail_at: int | None = None):
        self.good, self.fail_at, self.calls, self.asked = good, fail_at, itertools.count(1), []

    @property
    def chats(self):
        return [chat for chat, _ in self.asked]

    def __call__(self, messages, *, max_tokens, temperature, seed, model):
        if next(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append((messages, model))
        if self.good:
            return Reply(f"「{messages[-1]['content'][:12]}」って、ほんとに？びっくりした…", True, 9)
        return Reply("アシスタントです。" * 17, False, max_tokens)


@pytest.fixture
def evaluation(tmp_path, card, scenarios) -> Evaluation:
    return Evaluation(card, scenarios[:4], tmp_path, samples=2, max_tokens=8, temperature=0.7, seed=1)


def test_an_arm_hears_its_own_replies_and_bare_has_no_system_prompt(evaluation):
    for prompt in ("bare", "persona"):
        fake = Fake(good=True)
        evaluation.play([Arm(prompt, "m", prompt)], fake)
        roles = {tuple(m["role"] for m in chat) for chat in fake.chats}
        start = ("system",) if prompt == "persona" else ()
        turns = [("user",), ("user", "assistant", "user"), ("user", "assistant", "user", "assistant", "user")]
        assert roles == {start + t for t in turns}
        longest = max(fake.chats, key=len)
        assert longest[-2]["content"].startswith("「")


def test_a_routed_arm_asks_another_model_at_each_turn(evaluation):
    def route(turns, level):
        return f"{level}-{len(turns)}"

    fake, plain = Fake(good=True), Fake(good=True)
    transcripts = evaluation.play([Arm("routed", "m", "persona", route=route)], fake)["routed"]
    levels = {t.user_turns[0]: t.level for t in transcripts if t.kind == "scenario"}
    for chat, name in fake.asked:
        turns = sum(m["role"] == "user" for m in chat)
        assert name.endswith(f"-{turns}") and name.startswith(levels.get(chat[1]["content"], name.split("-")[0]))
    evaluation.play([Arm("plain", "m", "persona")], plain)
    assert {name for _, name in plain.asked} == {"m"}
    assert sorted(map(str, plain.chats)) == sorted(map(str, fake.chats))


def test_no_talk_waits_for_another_and_arms_talk_side_by_side(evaluation):
    """One talk of the first arm is answered only when all others of both arms are at their end."""
    held = evaluation.scenarios[0].user_turns[0]
    fake, seen, released = Fake(good=True), [], threading.Event()
    arms = [Arm("one", "1", "persona"), Arm("two", "2", "persona")]
    others = 2 * 2 * (4 * 3 + 2 * len(evaluation.card.probes)) - 2 * 3  # less both samples of the held talk

    def ask(messages, *, model, **how):
        if model == "1" and messages[1]["content"] == held:
            assert released.wait(60), "it is still waited for"
        else:
            seen.append(model)
            if len(seen) == others:
                released.set()
        return fake(messages, model=model, **how)

    played = evaluation.play(arms, ask)
    assert all(t.complete for talks in played.values() for t in talks) and set(played) == {"one", "two"}
    assert all(evaluation.load(arm) == played[arm.name] for arm in arms)


def test_the_seed_of_a_turn_is_its_own_and_the_same_for_every_arm(evaluation):
    seeds = {"1": {}, "2": {}}

    def ask(messages, *, seed, model, **_):
        seeds[model].setdefault(seed, []).append(str(messages))
        return Reply("うん。", True, 2)

    evaluation.play([Arm("one", "1", "persona"), Arm("two", "2", "persona")], ask)
    assert seeds["1"] == seeds["2"] and all(len(asked) == 1 for asked in seeds["1"].values())


def test_an_interrupted_evaluation_repeats_no_answered_turn(evaluation):
    arm = Arm("base", "m", "persona")
    first = Fake(good=True, fail_at=9)
    with pytest.raises(KeyboardInterrupt):
        evaluation.play([arm], first)
    assert first.asked and not evaluation.complete(arm)
    second, third = Fake(good=True), Fake(good=True)
    played = evaluation.play([arm], second)
    asked = [str(chat) for chat in first.chats + second.chats]
    conversations = 2 * (4 * 3 + 2 * len(evaluation.card.probes))
    assert len(asked) == conversations == sum(len(t.replies) for t in played["base"])
    assert evaluation.complete(arm) and evaluation.play([arm], third) == played and not third.asked


def test_what_was_said_with_any_line_separator_is_read_again(evaluation):
    """str.splitlines() cuts at each of them, and JSON leaves them raw."""
    arm = Arm("base", "m", "persona")
    said = "うん。\u2028そう\u2029だね\x85ね\x1c\x1d\x1e\x0b\x0c\r\nよ"
    played = evaluation.play([arm], lambda messages, **_: Reply(said, True, 9))["base"]
    assert evaluation.load(arm) == played and played[0].replies[0].text == said and evaluation.complete(arm)
    evaluation.file(arm).write_text('{"key"', encoding="utf-8")
    assert not any(t.replies for t in evaluation.load(arm)), "what cannot be read is played again"


def test_other_weights_or_settings_void_the_transcripts(evaluation):
    evaluation.play([Arm("lora", "m", "persona", "a")], Fake(good=True))
    assert evaluation.complete(Arm("lora", "m", "persona", "a"))
    assert not evaluation.complete(Arm("lora", "m", "persona", "b"))


class FakeUser:
    """The simulated user's endpoint: answers with a line of its own; it can fail at a call, or give no line."""

    def __init__(self, answer: str = "まあね、{n}回目だけど聞いてよ", fail_at: int | None = None):
        self.answer, self.fail_at, self.calls, self.chats = answer, fail_at, itertools.count(1), []

    def __call__(self, messages, *, max_tokens, temperature, seed):
        if next(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.chats.append(messages)
        return Reply(self.answer.format(n=len(messages) // 2), True, 9)


def with_user(evaluation: Evaluation, user: FakeUser) -> Evaluation:
    return dataclasses.replace(evaluation, user=SimulatedUser(user, "someone"))


def test_a_simulated_user_answers_her_and_leaves_the_turns_that_are_measured(evaluation):
    user, arm = FakeUser(), Arm("base", "m", "persona")
    played = with_user(evaluation, user).play([arm], Fake(good=True))["base"]
    scripts = {s.id: s for s in evaluation.scenarios}
    for t in played:
        if t.kind == "probe":
            assert t.said_by == []
            continue
        fixed = scripts[t.unit].fixed_turns
        for n, (turn, by) in enumerate(zip(t.user_turns, t.said_by, strict=True)):
            assert by == ("script" if n in fixed else "simulated")
            assert (turn == scripts[t.unit].user_turns[n]) == (n in fixed)
    asked = min(user.chats, key=len)
    assert [m["role"] for m in asked] == ["system", "user", "assistant", "user"]
    assert asked[2]["content"] in {s.user_turns[0] for s in evaluation.scenarios}
    assert "びっくりした" in asked[3]["content"] and "（言うこと：" in asked[3]["content"]


def test_a_simulated_user_leaves_whole_talks_in_which_something_is_said_that_is_measured_later(card, scenarios):
    kinds = ("memory_corrected", "boundary", "crisis", "false_memory")
    some = [s for s in scenarios if s.kind in kinds]
    assert {s.kind for s in some} == set(kinds)
    assert all(s.fixed_turns == set(range(len(s.user_turns))) for s in some)
    assert any(len(s.fixed_turns) < len(s.user_turns) for s in scenarios if s.kind == "comfort")


def test_a_simulated_user_is_asked_nothing_twice_and_another_one_voids_the_talk(evaluation):
    arm, first, second = Arm("base", "m", "persona"), FakeUser(fail_at=2), FakeUser()
    with pytest.raises(KeyboardInterrupt):
        with_user(evaluation, first).play([arm], Fake(good=True))
    played = with_user(evaluation, second).play([arm], Fake(good=True))["base"]
    simulated = sum(by == "simulated" for t in played for by in t.said_by)
    assert len(first.chats) + len(second.chats) == simulated > 0
    assert not evaluation.complete(arm)
    assert not dataclasses.replace(evaluation, user=SimulatedUser(second, "another")).complete(arm)


@pytest.mark.parametrize("answer", ["", "「」", "あ" * 900, "びっくりした…"])
def test_a_useless_line_of_the_simulated_user_leaves_the_script(evaluation, answer):
    her = Fake(good=True)
    if answer == "びっくりした…":
        her = lambda messages, **_: Reply(answer, True, 4)  # noqa: E731
    played = with_user(evaluation, FakeUser(answer)).play([Arm("base", "m", "persona")], her)["base"]
    scripts = {s.id: s.user_turns for s in evaluation.scenarios}
    assert all(t.user_turns == scripts[t.unit] for t in played if t.kind == "scenario")


SCENES, DRAWS = 12, 5000  # with fewer of either, of several comparisons none is shown


@pytest.fixture(scope="module")
def played(card, scenarios, tools, tmp_path_factory):
    folder = tmp_path_factory.mktemp("played")
    some = scenarios[:SCENES]
    evaluation = Evaluation(card, some, folder, samples=1, max_tokens=8, temperature=0.7, seed=1)
    transcripts = evaluation.play([Arm("good", "m", "persona")], Fake(good=True))
    transcripts |= evaluation.play([Arm("bad", "m", "bare")], Fake(good=False))
    rows = metrics.score([t for ts in transcripts.values() for t in ts], evaluation.scenarios, tools)
    return transcripts, rows, scoreboard(rows, [("good", "bad")], DRAWS, 0, reliable=("persona", "fluency", "stops"))


def test_the_scoreboard_sees_the_difference(played, card):
    transcripts, _, board = played
    played_scenarios = {t.unit for t in transcripts["good"] if t.kind == "scenario"}
    good, bad = board.arms["good"], board.arms["bad"]
    silent = {"drift", "sycophancy", "safety"}  # for want of long talks, facts and crises
    assert set(good) == set(metrics.METRICS) - silent
    assert board.totals["good"].low > board.totals["bad"].high and board.reliable == ("persona", "fluency", "stops")
    assert board.titles()["memory"].endswith("(unreliable)") and board.titles()["persona"] == "persona consistency"
    assert good["stops"].mean == 1 and bad["stops"].mean == 0
    assert good["persona"].low > bad["persona"].high and good["fluency"].low > bad["fluency"].high
    assert good["persona"].n == len(played_scenarios) and good["probes"].n == len(card.probes)
    assert all(c.low <= c.mean <= c.high for cells in board.arms.values() for c in cells.values())
    assert [(c.metric, c.verdict) for c in board.comparisons] == [
        *(("total", "better"), ("persona", "better"), ("stops", "better"))
    ]
    assert json.loads(json.dumps(board.as_json()))["arms"]["good"]["persona"]["mean"] == good["persona"].mean
    assert {len(row) for row in board.table()} == {len(board.columns)} == {3}
    (sentence,) = in_words(board.comparisons)
    total, persona, _ = (c.difference for c in board.comparisons)
    better = f"better in total ({total}), persona consistency ({persona}), stops by herself ("
    assert sentence.startswith(f"good against bad: {better}")
    assert total.mean == pytest.approx(board.totals["good"].mean - board.totals["bad"].mean, abs=2e-6)


def test_only_metrics_of_what_was_played_are_expected(played, scenarios, card):
    _, _, board = played
    some = scenarios[:SCENES]
    assert {"consistency", "acknowledge", "relevance"} < metrics.expected(some, card) <= set(board.arms["good"])
    given = {"kind": "moment", "situation": "", "affection_level": "friend", "calls_for": "calm"}
    imported = [Scenario(id=f"i{n}", user_turns=["雨だ"], **given) for n in range(2)]
    always = {"persona", "level", "emotion", "fluency", "stops", "probes"}
    assert metrics.expected(imported, card) == {*always, "relevance"} and metrics.expected(imported[:1], card) == always
    assert metrics.expected(imported[:1], card.model_copy(update={"probes": []})) == always - {"probes"}
    assert metrics.expected(scenarios, card) == set(metrics.METRICS)


def test_what_is_not_shown_is_said_so(played):
    _, rows, _ = played
    same = [dataclasses.replace(row, arm="twin") for row in rows if row.arm == "good"]
    board = scoreboard([*rows, *same], [("twin", "good"), ("bad", "good")], DRAWS, 0, reliable=("persona",))
    twin, bad = in_words(board.comparisons)
    nothing = "(+0.00 [+0.00, +0.00])"
    assert twin == (
        f"twin against good: no difference shown in total {nothing}, persona consistency {nothing}, "
        f"stops by herself {nothing}."
    )
    assert bad.startswith("bad against good: worse in total (-0.")


def test_an_arm_may_be_compared_on_every_reliable_metric_and_p_is_corrected_over_all(played):
    _, rows, _ = played
    same = [dataclasses.replace(row, arm="routed") for row in rows if row.arm == "good"]
    reliable = ("persona", "fluency", "emotion", "drift", "stops")  # nobody has a value of drift: the talks are short
    pairs = [("good", "bad"), ("routed", "good")]
    board = scoreboard([*rows, *same], pairs, 400, 0, reliable, in_full=["routed"])
    found = {(c.arm, c.metric): c for c in board.comparisons}
    assert [metric for arm, metric in found if arm == "routed"] == ["total", "persona", "emotion", "fluency", "stops"]
    assert [metric for arm, metric in found if arm == "good"] == ["total", "persona", "stops"]
    assert found["good", "persona"].p_holm == pytest.approx(8 * found["good", "persona"].difference.p)
    assert found["routed", "total"].verdict == "no difference shown"
    table = board.comparison_table()
    assert [row[0] for row in table] == ["good − bad", "", "", "routed − good", "", "", "", ""]
    assert [row[1] for row in table][3:6] == ["total", "persona consistency", "emotional expressiveness"]


def test_the_totals_difference_is_of_the_same_talks():
    """Metrics with other scenarios each: the total draws the same for all of them and for both arms."""
    rows = []
    for arm, gain in (("base", 0.0), ("lora", 0.1)):
        for unit in range(10):
            for sample in range(3):
                values = {"persona": 0.05 * unit + 0.1 * sample + gain, "stops": 1.0}
                values |= {"memory": 0.3 + 0.04 * unit + 2 * gain} if unit < 6 else {}
                rows.append(metrics.Row(arm, f"s{unit}", sample, 0, "うん", values))
    board = scoreboard(rows, [("lora", "base")], 400, 0, ("persona", "memory", "stops"))
    total = board.comparisons[0].difference
    assert (total.mean, total.low, total.high) == pytest.approx((0.1, 0.1, 0.1)) and total.p < 0.05


def test_what_changed_since_the_scoreboard_before_is_told(played, tmp_path):
    _, rows, board = played
    file, reliable = tmp_path / "scoreboard.json", ("persona", "fluency", "stops")
    board.write(file)
    board.write(file)
    assert not before(file).exists() and board.changes(file) == []
    worse = [
        dataclasses.replace(row, values=row.values | {"stops": 0.5})
        if row.arm == "good" and "stops" in row.values
        else row
        for row in rows
    ]
    newer = [dataclasses.replace(row, arm="newer") for row in rows if row.arm == "bad"]
    after = scoreboard([*[r for r in worse if r.arm == "good"], *newer], [], 200, 0, reliable)
    after.write(file)
    gone, total, stops, new = after.changes(file)
    assert gone == ["bad", "", "played", "not played", ""] and new == ["newer", "", "not played", "played", ""]
    assert stops == ["good", "stops by herself", "1.00 [1.00, 1.00]", "0.50 [0.50, 0.50]", "-0.50"]
    assert total[:2] == ["good", "total"] and total[-1] == "-0.17"


def rows_of(arm: str, **units: int) -> list[metrics.Row]:
    """A talk a unit for 12 units, with a value of each metric in the first so many of them."""
    values = {"persona": 0.8, "stops": 0.6, "memory": 0.0, "drift": 1.0}
    return [
        metrics.Row(arm, f"s{n}", 0, 0, "うん", {key: values[key] for key, many in units.items() if n < many})
        for n in range(12)
    ]


def test_a_metric_of_few_scenarios_and_drift_leave_the_total_and_it_says_so():
    rows = rows_of("lora", persona=12, stops=12, memory=5, drift=8)
    reliable = ("persona", "memory", "drift", "stops")
    board = scoreboard(rows, [], 400, 0, reliable)
    assert board.total_of == ("persona", "stops") and board.reliable == ("persona", "drift", "memory", "stops")
    total = board.totals["lora"]
    assert (total.mean, total.low, total.high) == pytest.approx((0.7, 0.7, 0.7)), "memory weighs nothing in it"
    assert board.titles()["memory"] == "memory (not in the total)" and board.titles()["stops"] == "stops by herself"
    assert board.made_of() == (
        "The total is the mean of persona consistency, stops by herself. Reliable and not in it: holds to the end "
        "(whoever was never in character cannot fall out of it), memory (5 of the 6 scenarios that it takes)."
    )
    written = board.as_json()
    assert written["total_of"] == ["persona", "stops"] and set(written["left_out"]) == {"drift", "memory"}
    enough = scoreboard(rows_of("lora", persona=12, stops=12, memory=6), [], 400, 0, reliable)
    assert enough.total_of == ("persona", "memory", "stops")
    assert enough.totals["lora"].mean == pytest.approx(1.4 / 3)


def test_the_total_is_made_of_the_same_metrics_for_every_arm():
    rows = [*rows_of("lora", persona=12, stops=12, memory=12), *rows_of("base", persona=12, stops=12, memory=3)]
    board = scoreboard(rows, [("lora", "base")], 400, 0, ("persona", "memory", "stops"), in_full=["lora"])
    assert board.total_of == ("persona", "stops") and board.totals["lora"].mean == board.totals["base"].mean
    verdicts = {c.metric: c.verdict for c in board.comparisons}
    assert verdicts["memory"] == "too few scenarios to show anything" and verdicts["total"] == "no difference shown"


def test_without_scenarios_enough_there_is_no_total(tmp_path):
    few = scoreboard(rows_of("lora", persona=3, stops=3), [], 100, 0, ("persona", "stops"))
    assert few.totals == {} and few.table()[0] == ["total", "–"]
    assert few.made_of().startswith("There is no total: too few scenarios were played. Reliable and not in it: persona")
    assert len(radar(few).axes) == 1 and len(forest_plot(few).axes) > 1
    file = tmp_path / "scoreboard.json"
    few.write(file)
    many = scoreboard(rows_of("lora", persona=12, stops=12), [], 100, 0, ("persona", "stops"))
    many.write(file)
    assert many.changes(file) == [["", "total, of", "–", "persona, stops", ""]]


def test_the_radar_has_a_line_an_arm_and_an_axis_a_metric_of_the_total(played):
    _, _, board = played
    (ax,) = radar(board).axes
    assert [line.get_label() for line in ax.get_lines()] == ["good", "bad"]
    assert len(ax.get_xticklabels()) == 3


# --- questionnaire


def test_samples_hide_their_arm_and_answers_resume(played, tmp_path):
    transcripts, _, _ = played
    db = tmp_path / "ratings.sqlite"
    everything = [t for ts in transcripts.values() for t in ts]
    samples = questionnaire.blind(everything, db, seed=0, per_arm=2)
    assert len(samples) == 4 and not any("good" in s.id or "bad" in s.id for s in samples)
    first = questionnaire.next_sample(db, samples, "a")
    for question in questionnaire.QUESTIONS:
        assert questionnaire.next_sample(db, samples, "a") == first
        questionnaire.save_rating(db, first.id, "a", question, 4)
    again = questionnaire.blind(everything, db, seed=0, per_arm=2)
    assert again == samples and questionnaire.next_sample(db, again, "a") == samples[1]
    assert questionnaire.next_sample(db, again, "b") == first
    questionnaire.save_rating(db, first.id, "a", "overall", 2)
    ratings = questionnaire.load_ratings(db, samples)
    assert len(ratings) == 5 and {r["value"] for r in ratings if r["question"] == "overall"} == {2}
    assert ratings[0]["arm"] in transcripts


@pytest.mark.parametrize(("question", "value"), [("overall", 0), ("overall", 6), ("beauty", 3)])
def test_wrong_answers_are_refused(tmp_path, question, value):
    with pytest.raises(ValueError, match=r"rating|question"):
        questionnaire.save_rating(tmp_path / "r.sqlite", "s", "me", question, value)


class Filled:
    """The form in parts, as somebody fills it in."""

    def __init__(self, db, samples):
        import ipywidgets

        box = questionnaire.form(db, samples)
        self.name, self.progress, self.shown, *_, self.onward = box.children
        self.buttons = [line.children[1] for line in box.children if isinstance(line, ipywidgets.VBox)]

    def answer(self, value: int) -> None:
        for toggle in self.buttons:
            toggle.value = value


@pytest.fixture
def blinded(played, tmp_path):
    transcripts, _, _ = played
    db = tmp_path / "ratings.sqlite"
    return db, questionnaire.blind([t for ts in transcripts.values() for t in ts], db, seed=0, per_arm=2)


def given(db, samples) -> dict[str, list[int]]:
    """rater → values, one after the other."""
    found: dict[str, list[int]] = {}
    for rating in questionnaire.load_ratings(db, samples):
        found.setdefault(rating["rater"], []).append(rating["value"])
    return found


def test_the_form_saves_each_click_and_goes_on(blinded):
    db, samples = blinded
    form = Filled(db, samples)
    form.name.value = " 美緒 "
    form.buttons[0].value = 5
    assert given(db, samples) == {"美緒": [5]} and form.progress.value == "0 / 4"
    form.answer(3)
    form.onward.click()
    assert form.progress.value == "1 / 4" and form.buttons[0].value is None
    assert given(db, samples) == {"美緒": [3] * 5}


def test_several_raters_answer_in_one_form_and_each_goes_on_where_he_stopped(blinded):
    db, samples = blinded
    form = Filled(db, samples)
    form.name.value = "a"
    first = form.shown.value
    form.answer(2)
    form.onward.click()
    second = form.shown.value
    form.name.value = "b"
    assert form.progress.value == "0 / 4" and all(toggle.value is None for toggle in form.buttons)
    for _ in samples:
        form.answer(4)
        form.onward.click()
    assert "すべて終わりました" in form.shown.value and form.onward.disabled
    form.name.value = "a"
    assert form.shown.value == second != first and form.progress.value == "1 / 4"
    assert given(db, samples) == {"a": [2] * 5, "b": [4] * 20}
    again = Filled(db, samples)
    again.name.value = "a"
    assert again.shown.value == second


def test_nobody_answers_without_a_name(blinded):
    db, samples = blinded
    form = Filled(db, samples)
    assert "お名前" in form.shown.value and form.onward.disabled and all(toggle.disabled for toggle in form.buttons)
    form.answer(3)
    form.name.value = "   "
    form.answer(4)
    assert given(db, samples) == {}


def test_each_rater_has_an_order_of_his_own(blinded):
    db, samples = blinded
    form, seen = Filled(db, samples), set()
    for n in range(12):
        form.name.value = f"rater {n}"
        seen.add(form.shown.value)
    assert len(seen) > 1 and given(db, samples) == {}


def test_dialogues_are_escaped():
    assert "<script>" not in questionnaire.dialogue_html([("her", "<script>")])
