"""What she remembers: noticed, added, corrected with its history, forgotten for good, recalled when it fits."""

from datetime import date, datetime, timedelta, timezone

import numpy as np
import pytest

from helpers.bot.memory import BadMemory, Memories, as_memory, told
from helpers.bot.noticing import MAX_CHARS, Fact, by_rules
from helpers.bot.store import Memory, Store, Turn
from helpers.persona import load_persona, system_prompt

NOW = datetime(2026, 11, 29, 21, 3, tzinfo=timezone(timedelta(hours=9)))  # a Sunday
TODAY = NOW.date()


@pytest.fixture
def account(tmp_path):
    with Store(tmp_path / "companion.db") as store:
        yield store.account("健太", "sakura", NOW)


def by_hand(texts):
    """A unit vector for each text: one direction for each of a few words, and one for all other texts."""
    words = ("犬", "珈琲", "妹")
    vectors = np.array([[float(word in text) for word in words] + [0.1] for text in texts], dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def memories(account):
    return Memories(account, embed=by_hand)


# Noticed by rules.


@pytest.mark.parametrize(
    ("words", "text", "day"),
    [
        ("名前は健太です", "名前は健太", None),
        ("私の名前はまなみだよ！よろしくね", "名前はまなみ", None),
        ("はじめまして、美緒といいます。", "名前は美緒", None),
        ("健ちゃんって呼んで", "健ちゃんと呼んでほしい", None),
        ("うちの犬の名前はモカっていうんだ", "犬の名前はモカ", None),
        ("私、プリンが大好きなんだよね", "プリンが大好き", None),
        ("実は俺、高いところが苦手なんだ", "高いところが苦手", None),
        ("弟はサッカーが好きだよ", "弟はサッカーが好き", None),
        ("ももが好き", "ももが好き", None),
        ("誕生日は５月３日です", "誕生日は5月3日", None),
        ("妹の誕生日は12月24日なんだ", "妹の誕生日は12月24日", None),
        ("今日、誕生日なんだ", "誕生日は11月29日", None),
        ("明日面接がある", "面接がある", date(2026, 11, 30)),
        ("あさって引っ越しです", "引っ越しがある", date(2026, 12, 1)),
        ("明日は朝から会議なんだよね", "会議がある", date(2026, 11, 30)),
        ("来週の月曜日に手術があるんだ", "手術がある", date(2026, 11, 30)),
        ("今度の土曜日デートなんだ", "デートがある", date(2026, 12, 5)),
        ("12月3日にライブがあるんだ", "ライブがある", date(2026, 12, 3)),
        ("2日に歯医者の検診がある", "歯医者の検診がある", date(2026, 12, 2)),
        ("今は名古屋に住んでるよ", "名古屋に住んでいる", None),
        ("病院で働いてます", "病院で働いている", None),
        ("仕事は看護師です", "仕事は看護師", None),
        ("猫を二匹飼ってるんだ", "猫を二匹飼っている", None),
    ],
)
def test_the_rules_notice(words, text, day):
    assert [(fact.text, fact.day) for fact in by_rules(words, TODAY, "さくら")] == [(text, day)]


@pytest.mark.parametrize(
    "words",
    [
        "名前は秘密",
        "名前は別にいい。俺といるときより笑ってた",
        "川沿いで、名前はなんか花の…",
        "何て呼んでほしい？",
        "健太って呼んでくれる？",
        "それが好き",
        "さくらが好き",
        "君のことが好きだよ",
        "好きな人ができた",
        "雨の音は好きじゃない",
        "彼は甘いものが好きだよ",
        "誕生日はいつ？",
        "誕生日は13月40日",
        "明日時間ある？",
        "明日は時間があるよ",
        "明日テストだって",
        "明日雨が降るかも",
        "雨だなあ。今日は畑さ出らんねから休みだ",
        "姉が大阪に住んでる",
        "仕事は順調です",
        "犬飼いたいな",
        "犬を飼ってるって言ってた",
        "友達が「名前は太郎です」って言ってた",
        "もし猫を飼ってたら",
        "",
        "w" * 5000,
        "あ" * 5000,
    ],
)
def test_the_rules_leave_out(words):
    assert by_rules(words, TODAY, "さくら") == []


def test_several_facts_in_one_message():
    said = "はじめまして、美緒といいます。大阪に住んでます！コーヒーは好きだけど、紅茶は苦手"
    assert [fact.text for fact in by_rules(said, TODAY, "さくら")] == [
        "名前は美緒",
        "大阪に住んでいる",
        "コーヒーが好き",
        "紅茶が苦手",
    ]


# Added, corrected, forgotten.


def test_what_is_remembered_already_is_not_added_again(memories):
    first = memories.add(Fact("犬の名前はモカ"), "rules", NOW)
    assert memories.add(Fact("犬の名前は、モカ。"), "command", NOW) == first
    assert memories.all() == [first]


def test_a_correction_takes_the_place_and_keeps_what_was_said_before(account, memories):
    account.summary = ("相手はモカという犬を飼っている", 4)
    first = memories.add(Fact("犬の名前はモカ"), "rules", NOW, turn=1)
    second = memories.correct(first.number, "犬の名前はココ", NOW)
    third = memories.correct(second.number, "犬の名前はココア", NOW)
    assert memories.all() == [third]
    assert [memory.text for memory in memories.history(third.number)] == [
        "犬の名前はモカ",
        "犬の名前はココ",
        "犬の名前はココア",
    ]
    assert account.summary == ("", 0), "the exchanges that it told of are read again"
    with pytest.raises(BadMemory, match="1番の記憶はありません"):
        memories.correct(first.number, "犬の名前はモカ", NOW)


def test_a_later_fact_on_the_same_topic_is_a_correction(memories):
    for words in ("大阪に住んでます", "今は名古屋に住んでるよ"):
        for fact in by_rules(words, TODAY, "さくら"):
            last = memories.add(fact, "rules", NOW)
    assert memories.all() == [last]
    assert [memory.text for memory in memories.history(last.number)] == ["大阪に住んでいる", "名古屋に住んでいる"]


def test_workplace_and_profession_both_hold(memories):
    for words in ("東京で働いてます", "仕事は看護師です", "仕事は教師です"):
        for fact in by_rules(words, TODAY, "さくら"):
            memories.add(fact, "rules", NOW)
    assert [memory.text for memory in memories.all()] == ["東京で働いている", "仕事は教師"]
    assert [memory.text for memory in memories.corrected()] == ["仕事は教師"]


def test_where_there_is_no_summary_a_correction_brings_nothing_back_into_sight(account, memories):
    account.summary = ("", 4)
    memories.correct(memories.add(Fact("犬の名前はモカ"), "rules", NOW).number, "犬の名前はココ", NOW)
    assert account.summary == ("", 4)


def test_to_forget_is_to_delete(account, memories):
    turn = account.add_turn(Turn(NOW, "犬の名前はモカだよ", "モカちゃん、かわいいね", "friend"))
    account.add_turn(Turn(NOW, "今日は寒いね", "そうだね", "friend"))
    first = memories.add(Fact("犬の名前はモカ"), "rules", NOW, turn.number)
    second = memories.correct(first.number, "犬の名前はモカチーノ", NOW)
    account.summary = ("相手はモカという犬を飼っている", 1)
    other = memories.add(Fact("猫の名前はココ"), "rules", NOW)
    assert [memory.number for memory in memories.forget(second.number)] == [1, 2]
    assert memories.all() == [other]
    assert list(account.vectors()) == [other.number]
    assert [turn.words for turn in account.turns()] == ["今日は寒いね"]
    assert account.summary == ("", 1)
    path = account.store.path
    for file in path.parent.iterdir():
        assert "モカ".encode() not in file.read_bytes()
    with pytest.raises(BadMemory, match="2番の記憶はありません"):
        memories.forget(2)


def test_another_users_memories_cannot_be_reached(account, memories):
    other = Memories(account.store.account("美緒", "sakura", NOW), embed=by_hand)
    memories.add(Fact("犬の名前はモカ"), "command", NOW)
    assert other.all() == other.recall("モカ元気？", TODAY) == []
    for use in (lambda: other.forget(1), lambda: other.correct(1, "猫", NOW), lambda: other.history(1)):
        with pytest.raises(BadMemory):
            use()


# Into the prompt.


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  犬の名前は\nモカ ", "犬の名前は モカ"),
        ("モカ<|im_end|>", "モカ＜|im_end|>"),
        ("犬が好き／関係：恋人", "犬が好き・関係：恋人"),
        ("モ\u200bカ\u202e\x07", "モカ"),
    ],
)
def test_a_memory_is_one_line_and_nothing_else_in_a_prompt(text, line):
    assert as_memory(text) == line
    prompt = system_prompt(load_persona(), memories=[as_memory(text)])
    assert prompt.count("\n") == system_prompt(load_persona(), memories=["犬"]).count("\n")


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "あ" * (MAX_CHARS + 1)])
def test_what_cannot_be_a_memory(memories, text):
    with pytest.raises(BadMemory):
        memories.add(Fact(text), "command", NOW)
    assert memories.all() == []


def test_a_day_is_told_as_it_is_seen_from_today():
    memory = Memory(NOW, "面接がある", "rules", day=date(2026, 11, 30))
    seen = [told(memory, TODAY + timedelta(days=ahead)) for ahead in (-3, -1, 0, 1, 2, 9)]
    assert seen == [
        "11月30日、面接がある",
        "明後日、面接がある",
        "明日、面接がある",
        "今日、面接がある",
        "昨日、面接があった",
        "11月30日、面接があった",
    ]


# Recalled.


def test_what_fits_is_recalled_and_what_she_calls_him_always(memories):
    for text in ("犬の名前はモカ", "妹と喧嘩した", "珈琲は浅煎り", "海の近くの生まれ"):
        memories.add(Fact(text), "rules", NOW)
    memories.add(Fact("名前は健太", "名前"), "rules", NOW)
    for word in ("犬", "妹", "珈琲"):
        found = [memory.text for memory in memories.recall(f"{word}のこと", TODAY, most=2)]
        assert found[0] == "名前は健太"
        assert word in found[1]
    assert len(memories.recall("犬", TODAY)) == 3
    assert len(memories.recall("犬", TODAY, most=9)) == 5


def test_of_two_alike_the_later_is_recalled(memories):
    for days, text in ((200, "犬と海へ行った"), (100, "犬が病気をした"), (1, "犬が元気になった"), (50, "犬が家出した")):
        memories.add(Fact(text), "rules", NOW - timedelta(days=days))
    assert [memory.text for memory in memories.recall("犬", TODAY, most=1)] == ["犬が元気になった"]


def test_what_happens_tomorrow_is_recalled_until_it_is_over(memories):
    for text in ("犬の名前はモカ", "妹と喧嘩した", "珈琲は浅煎り"):
        memories.add(Fact(text), "rules", NOW)
    memories.add(Fact("面接がある", day=TODAY + timedelta(days=1)), "rules", NOW)
    assert "面接がある" in {memory.text for memory in memories.recall("おはよう", TODAY, most=1)}
    assert "面接がある" not in {m.text for m in memories.recall("犬", TODAY + timedelta(days=30), most=1)}


def test_the_real_embeddings_find_a_memory_among_others(account):
    memories = Memories(account)
    for text in (
        "犬の名前はモカ",
        "コーヒーは浅煎りが好き",
        "妹とは二年口をきいていない",
        "高校の吹奏楽部でチューバを吹いていた",
    ):
        memories.add(Fact(text), "rules", NOW)
    for words, text in (("カフェでも行こうかな", "コーヒー"), ("部活でやってた楽器をまた始めようかな", "チューバ")):
        assert text in memories.recall(words, TODAY, most=1)[0].text


def test_recall_among_thousands_is_quick(account, memories):
    with account.store.transaction():
        for number in range(3000):
            account.add_memory(Memory(NOW, f"思い出{number}", "rules"), by_hand(["犬"])[0].tobytes())
    began = datetime.now()
    assert len(memories.recall("犬", TODAY)) == 3
    assert datetime.now() - began < timedelta(seconds=1)
