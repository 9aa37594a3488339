"""The relationship follows from what happened: bounded, slow, explained, and not to be had for compliments."""

from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.bot.relationship import (
    DAY_GAIN,
    DAY_LOSS,
    MAX_POINTS,
    REST,
    REST_TURNS,
    SLACK,
    THRESHOLDS,
    WORTH,
    after,
    course,
    explain,
    kind_of,
    missing,
    relationship,
)
from helpers.bot.store import Event
from helpers.persona import LEVELS, load_persona

CARD = load_persona()
START = datetime(2026, 11, 1, 20, 0, tzinfo=timezone(timedelta(hours=9)))


def days(number, kinds, first=0):
    """`kinds` on each of `number` days, a minute apart."""
    return [
        Event(START + timedelta(days=first + day, minutes=minute), kind)
        for day in range(number)
        for minute, kind in enumerate(kinds)
    ]


EVENTS = st.lists(
    st.tuples(st.sampled_from(sorted(WORTH)), st.integers(0, 60 * 40)).map(lambda e: (e[0], timedelta(minutes=e[1]))),
    max_size=120,
).map(
    lambda steps: [Event(START + sum((w for _, w in steps[: i + 1]), timedelta()), k) for i, (k, _) in enumerate(steps)]
)


@given(EVENTS)
def test_points_are_bounded_and_steps_are_single_and_far_apart(events):
    states = course(events)
    assert states[-1] == relationship(events)
    stepped = [(i, state.last.event.at) for i, state in enumerate(states) if state.last and state.last.step]
    for before, now in pairwise(states):
        assert 0 <= now.points <= MAX_POINTS
        assert abs(LEVELS.index(now.level) - LEVELS.index(before.level)) == (now.last.step is not None)
        assert now.points == pytest.approx(before.points + now.last.points)
    for (i, at), (j, later) in pairwise(stepped):
        assert later - at >= REST or j - i >= REST_TURNS
    for day in {event.at.date() for event in events}:
        moved = [state.last.points for state in states[1:] if state.last.event.at.date() == day]
        assert sum(p for p in moved if p > 0) <= DAY_GAIN + 1e-9
        assert -sum(p for p in moved if p < 0) <= DAY_LOSS + 1e-9


@given(EVENTS, EVENTS)
def test_the_past_alone_decides(first, second):
    later = [Event(event.at + timedelta(days=400), event.kind) for event in second]
    state = relationship(first)
    for event in later:
        state = after(state, event)
    assert state == relationship([*first, *later])


@given(st.lists(st.sampled_from(["liking", "thanks", "opened_up"]), min_size=1, max_size=400))
def test_a_day_of_flattery_is_worth_no_more_than_a_day(kinds):
    now = relationship([Event(START + timedelta(seconds=i), kind) for i, kind in enumerate(kinds)])
    assert now.points <= DAY_GAIN
    assert now.level == "stranger"


def test_flattery_alone_brings_nothing():
    assert relationship(days(60, ["liking"] * 100)).points == 0
    plain = relationship(days(1, ["talk", "told", "opened_up"]))
    with_flattery = relationship(days(1, ["talk", "told", "opened_up"] + ["liking"] * 200))
    assert plain.points < with_flattery.points <= 2 * plain.points


def test_the_same_words_again_count_for_nothing():
    assert relationship(days(3, ["repeated"] * 50)).points == 0


def test_weeks_of_talk_lead_to_friendship_and_not_to_love():
    states = course(days(90, ["talk", "told", "opened_up", "thanks"]))
    reached = [state.level for state in states]
    assert [level for i, level in enumerate(reached) if i == 0 or level != reached[i - 1]] == [*LEVELS[:4]]
    assert reached.index("friend") > 4 * 4
    assert states[-1].points > THRESHOLDS["crush"]
    assert missing(states[-1]) == ["好意を伝えてくれた日があと3日"]


def test_somebody_who_says_so_on_many_days_becomes_a_lover():
    states = course(days(60, ["talk", "told", "opened_up", "liking"]))
    assert states[-1].level == "lover"
    assert next(i for i, state in enumerate(states) if state.level == "lover") > 4 * 18


def test_harsh_words_cost_a_step_at_most_a_day_and_absence_costs_nothing():
    near = days(30, ["talk", "told", "opened_up", "thanks"])
    before = relationship(near)
    after_insults = relationship([*near, *days(1, ["insult"] * 30, first=31)])
    assert before.points - after_insults.points <= DAY_LOSS
    assert LEVELS.index(before.level) - LEVELS.index(after_insults.level) <= 1
    much_later = relationship([*near, *days(1, ["talk"], first=400)])
    assert much_later.points > before.points


def test_a_level_is_not_lost_and_won_back_at_its_threshold():
    friend = relationship(days(8, ["talk", "told", "opened_up", "thanks"]))
    assert friend.level == "friend"
    wavering = [*days(8, ["talk", "told", "opened_up", "thanks"])]
    for day in range(20):
        wavering += days(1, ["insult" if day % 2 else "opened_up", "talk"], first=9 + day)
    levels = [state.level for state in course(wavering)[8 * 4 :]]
    assert sum(a != b for a, b in pairwise(levels)) <= 1
    assert 2 * WORTH["liking"] < SLACK


def test_it_is_explained():
    events = days(10, ["talk", "opened_up", "liking"])
    lines = explain(events, CARD, pinned=None)
    now = relationship(events)
    assert f"「{CARD.levels[now.level].label}」" in lines[0] and f"{now.points:.1f}点" in lines[0]
    assert any("次の「親友」まで、あと" in line for line in lines)
    assert any("好意を伝えてくれた（+1.0点" in line for line in lines)
    assert "固定" not in lines[0]
    assert "「恋人」に固定" in explain(events, CARD, pinned="lover")[0]
    assert "0.0点" in explain([], CARD, pinned=None)[0]
    stepping = explain(days(3, ["talk", "told", "opened_up", "thanks"]), CARD, None)
    assert any("関係が「知り合い」に" in line for line in stepping)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("今日は寒いね", "talk"),
        ("やっぱ好き。ずっと好き", "liking"),
        ("さくらのことが大好きだよ！", "liking"),
        ("会いたいな", "liking"),
        ("さくらが好きそうな店があったよ", "talk"),
        ("プリンが好き", "talk"),
        ("毎晩こうやって付き合ってくれない？", "talk"),
        ("ありがとう、元気出た", "thanks"),
        ("店員さんに「ありがとうございました」って言われた", "talk"),
        ("誰にも言ってないんだけど、聞いてほしい", "opened_up"),
        ("お前なんか大嫌いだ", "insult"),
        ("黙れ", "insult"),
        ("上司がうざい", "talk"),
        ("死ぬほど眠い", "talk"),
        ("しばらく距離を置きたい", "distance"),
        ("友達のままがいい", "distance"),
        (
            "朝から市役所に行って、番号札を取って、二時間待って、やっと呼ばれたと思ったら書類が一枚足りなかったんだ",
            "told",
        ),
        ("", "talk"),
        ("。。。", "talk"),
    ],
)
def test_what_words_are(words, kind):
    assert kind_of(words, ["おはよう"], CARD) == kind


def test_words_said_again_are_repeated():
    assert kind_of("好き！", ["好き"], CARD) == "repeated"
    assert kind_of("好きだよ", ["好き"], CARD) == "liking"
    assert kind_of("😊", ["😊"], CARD) == "talk"
