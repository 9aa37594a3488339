"""Chats as other programs write them: what is read, what is left out, and who is asked for."""

import json

import pytest

from helpers.data.readers import UnknownFormat, WhoIsShe, detect_format, read_chats

PHONE = """[LINE] みおとのトーク履歴
保存日時：2024/05/01 12:34

2024/04/30(火)
21:03\t健\tこんばんは
21:03\t健\t今日さ、財布落とした
21:05\tみお\t"え、うそ
どこで？"
21:06\tみお\t[スタンプ]
21:06\t健\t駅。21:00に集合だったのに
22:00 に気づいた
21:07\tみお\t☎ 通話時間 1:02

2024/05/01(水)
午前9:15\tみお\tおはよ、見つかった？
午前9:20\t健\t交番に届いてた
午後0:01\tみお\tよかったあ
0:05\t\t健がメッセージの送信を取り消しました
"""


def write(path, text: str | dict | list):
    path.write_text(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False), encoding="utf-8")
    return path


def turns(conversation) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in conversation.messages]


def test_a_line_talk_from_a_phone(tmp_path):
    file = write(tmp_path / "talk.txt", PHONE)
    reading = read_chats(file, companion="みお")
    assert detect_format(file) == "line"
    first, second = reading.conversations
    assert turns(first) == [
        ("user", "こんばんは\n今日さ、財布落とした"),
        ("assistant", "え、うそ\nどこで？"),
    ]
    assert turns(second) == [("user", "交番に届いてた"), ("assistant", "よかったあ")]
    reasons = {b.line: b.reason for b in reading.quarantine}
    assert "sticker" in reasons[9] and "nobody answered" in reasons[10] and "call" in reasons[12]
    assert "she speaks first" in reasons[15] and "notice" in reasons[18]


def test_a_line_talk_from_a_pc(tmp_path):
    text = "2024.04.30 火曜日\n21:03 健 ただいま\n21:04 みお おかえり\nごはん食べた？\n"
    (conversation,) = read_chats(write(tmp_path / "pc.txt", text), companion="みお").conversations
    assert turns(conversation) == [("user", "ただいま"), ("assistant", "おかえり\nごはん食べた？")]


@pytest.mark.parametrize("weekday", ["Tuesday", "Tue", "(Tue)"])
def test_a_line_talk_from_a_pc_in_english(tmp_path, weekday):
    day = "21:03 健 ただいま\n21:04 みお おかえり\n"
    text = f"[LINE] Chat history with みお\n2024.04.30 {weekday}\n{day}2024.05.02 {weekday}\n{day}"
    conversations = read_chats(write(tmp_path / "pc.txt", text), companion="みお").conversations
    assert [turns(c) for c in conversations] == [[("user", "ただいま"), ("assistant", "おかえり")]] * 2


def test_a_discord_channel_in_json_and_in_csv(tmp_path):
    def message(name, content, minute, kind="Default"):
        stamp = f"2024-05-01T21:{minute:02}:00.000+09:00"
        return {"type": kind, "timestamp": stamp, "content": content, "author": {"name": name, "nickname": name}}

    said = [message("ken", "やあ", 0), message("mio", "おつかれ", 1, "Reply"), message("ken", "", 2, "Call")]
    exported = {"guild": {"id": "1"}, "channel": {"id": "2"}, "messages": said}
    reading = read_chats(write(tmp_path / "d.json", exported), companion="mio")
    assert [turns(c) for c in reading.conversations] == [[("user", "やあ"), ("assistant", "おつかれ")]]
    assert reading.quarantine[0].line == 3
    table = (
        "AuthorID,Author,Date,Content,Attachments,Reactions\n"
        "1,ken,2024-05-01T21:00:00+09:00,やあ,,\n2,mio,2024-05-01T21:01:00+09:00,おつかれ,,\n"
    )
    (same,) = read_chats(write(tmp_path / "d.csv", table), companion="mio").conversations
    assert turns(same) == turns(reading.conversations[0]) and same.metadata.source == "discord_csv"


def test_a_telegram_chat(tmp_path):
    def message(name, text, at, **more):
        return {"type": "message", "date": at, "date_unixtime": "1", "from": name, "text": text, **more}

    linked = ["見て ", {"type": "link", "text": "https://example.com"}]
    said = [message("ken", linked, "2024-05-01T10:00:00"), message("mio", "なにこれ", "2024-05-01T10:01:00")]
    said += [
        message("ken", "", "2024-05-01T10:02:00", media_type="sticker"),
        message("ken", "笑", "2024-05-02T10:02:00"),
    ]
    reading = read_chats(write(tmp_path / "result.json", {"name": "mio", "messages": said}), companion="mio")
    assert [turns(c) for c in reading.conversations] == [
        [("user", "見て https://example.com"), ("assistant", "なにこれ")]
    ]
    assert [b.line for b in reading.quarantine] == [3, 4]


def test_tables(tmp_path):
    pairs = "user,assistant\nただいま,おかえり\n疲れた,座って。お茶いれる\n"
    (conversation,) = read_chats(write(tmp_path / "pairs.csv", pairs)).conversations
    assert len(conversation.messages) == 4
    named = (
        "会話,話者,発言,日時\n1,健,やあ,2024/05/01 10:00\n1,みお,おはよ,2024/05/01 10:01\n"
        "2,健,ねむい,いつか\n2,健,ねえ,2024/05/01 10:03\n2,みお,なに,2024/05/01 10:04\n"
    )
    reading = read_chats(write(tmp_path / "named.csv", named), companion="みお")
    assert [turns(c)[0][1] for c in reading.conversations] == ["やあ", "ねえ"]
    assert reading.quarantine[0].line == 4 and "いつか" in reading.quarantine[0].reason
    with pytest.raises(ValueError, match="columns a, b: call one of them speaker"):
        read_chats(write(tmp_path / "other.csv", "a,b\n1,2\n"))


SYSTEM = {"role": "system", "content": "さくらとして話す"}
SAID = [{"role": "user", "content": "やあ"}, {"role": "assistant", "content": "おはよ"}]
PARTS = {"role": "user", "content": [{"type": "text", "text": "やあ"}]}
PAIR = [{"from": "human", "value": "やあ"}, {"from": "gpt", "value": "おはよ"}]


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("native", {"messages": [SYSTEM, *SAID]}),
        ("openai", {"messages": [SYSTEM | {"role": "developer"}, PARTS, SAID[1]]}),
        ("sharegpt", {"system": SYSTEM["content"], "conversations": PAIR}),
        ("alpaca", {"system": SYSTEM["content"], "instruction": "やあ", "input": "", "output": "おはよ"}),
    ],
)
def test_formats_with_roles(tmp_path, name, item):
    for file, content in (("a.jsonl", json.dumps(item) + "\n{"), ("b.json", [item, 3])):
        path = write(tmp_path / file, content)
        assert detect_format(path) == name
        reading = read_chats(path)
        (conversation,) = reading.conversations
        assert turns(conversation) == [("user", "やあ"), ("assistant", "おはよ")]
        assert conversation.system == "さくらとして話す"
        assert [b.line for b in reading.quarantine] == [2]


def test_what_cannot_be_learned_is_said(tmp_path):
    picture = {
        "messages": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "x"}]
    }
    tool = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [{}]}]}
    lines = "\n".join(json.dumps(x) for x in (picture, tool))
    reasons = [b.reason for b in read_chats(write(tmp_path / "x.jsonl", lines)).quarantine]
    assert "image_url" in reasons[0] and "calls a tool" in reasons[1]


def test_who_is_she(tmp_path):
    file = write(tmp_path / "talk.txt", PHONE)
    with pytest.raises(WhoIsShe, match="talk みお, 健: name the one"):
        read_chats(file)
    with pytest.raises(WhoIsShe, match="みお"):
        read_chats(file, companion="さくら")


def test_more_than_two_are_no_dialogue(tmp_path):
    three = "speaker,text\n健,やあ\nみお,おはよ\n父,めし\nみお,はーい\n"
    reading = read_chats(write(tmp_path / "t.csv", three), companion="みお")
    assert not reading.conversations and "more than two" in reading.quarantine[0].reason


def test_what_no_reader_knows(tmp_path):
    for name, content in (("a.txt", "こんにちは"), ("b.json", {"a": 1}), ("c.xml", "<a/>")):
        with pytest.raises(UnknownFormat, match=f"{name} looks like none of"):
            read_chats(write(tmp_path / name, content))
    with pytest.raises(UnknownFormat, match="no format 'slack'"):
        read_chats(write(tmp_path / "a.txt", "x"), format="slack")
    shifted = tmp_path / "sjis.txt"
    shifted.write_bytes(PHONE.encode("cp932", "replace"))
    with pytest.raises(ValueError, match=r"sjis.txt is Shift_JIS, not UTF-8; save the file as UTF-8\."):
        read_chats(shifted, companion="みお")


def test_a_day_that_does_not_exist_costs_no_message(tmp_path):
    text = PHONE.replace("2024/05/01(水)", "2024/13/01") + "2024/05/02(木)\n8:00\t健\tおはよ\n8:01\tみお\tねむい\n"
    reading = read_chats(write(tmp_path / "talk.txt", text), companion="みお")
    assert turns(reading.conversations[1]) == [("user", "交番に届いてた"), ("assistant", "よかったあ")]
    assert len(reading.conversations) == 3
    assert {b.line: b.reason for b in reading.quarantine}[14] == "there is no such day in the calendar"


def test_a_time_that_does_not_exist_is_nobodys_message(tmp_path):
    text = "2024/04/30(火)\n21:03\t健\tやあ\n21:04\tみお\tおはよ\n\nどうしたの\n25:61\t健\tねえ\nきいて\n"
    reading = read_chats(write(tmp_path / "talk.txt", text), companion="みお")
    assert turns(reading.conversations[0]) == [("user", "やあ"), ("assistant", "おはよ\n\nどうしたの")]
    (bad,) = reading.quarantine
    assert (bad.line, bad.reason, bad.text) == (6, "there is no such time of day", "25:61\t健\tねえ\nきいて")


@pytest.mark.parametrize("head", ["", "[LINE] 佐藤 美咲とのトーク履歴\n保存日時：2024/05/01 12:34\n\n"])
def test_a_name_with_a_space_in_a_talk_from_a_pc(tmp_path, head):
    said = "".join(f"21:{n:02} 健 うん{n}\n21:{n:02} 佐藤 美咲 そう{n} だね\n" for n in range(1 if head else 4))
    text = f"{head}2024.04.30 火曜日\n{said}21:30 佐藤 美咲 [スタンプ]\n21:31 佐藤 美咲が参加しました\n"
    reading = read_chats(write(tmp_path / "pc.txt", text), companion="佐藤 美咲")
    assert reading.speakers == ["佐藤 美咲", "健"]
    assert turns(reading.conversations[0])[:2] == [("user", "うん0"), ("assistant", "そう0 だね")]
    assert [b.reason.split(",")[0] for b in reading.quarantine] == ["it is a sticker"] * 2
    two = "".join(f"21:{n:02} 佐藤 健 うん{n}\n21:{n:02} 佐藤 美咲 そう{n}\n" for n in range(3))
    assert read_chats(write(tmp_path / "two.txt", f"2024.04.30 火曜日\n{two}"), companion="佐藤 美咲").speakers == [
        "佐藤 健",
        "佐藤 美咲",
    ]


def test_the_format_is_what_most_items_are_and_a_broken_first_one_refuses_nothing(tmp_path):
    for name, items in (
        ("sharegpt", ["{", 5, {"conversations": PAIR}]),
        ("alpaca", [{}, {"instruction": "やあ", "output": "おはよ"}]),
        ("openai", ["{", {"messages": 5}, {"messages": [*SAID[:1], SAID[1] | {"weight": 1}]}]),
        ("openai", [{"messages": SAID}, {"messages": [SYSTEM | {"role": "developer"}, *SAID]}]),
        ("native", [{"messages": [{"role": "user", "content": 42}, SAID[1]]}, {"messages": SAID}]),
        ("native", [{"messages": [PARTS, SAID[1]]}, {"messages": SAID, "metadata": {"affection_level": "lover"}}]),
    ):
        lines = "\n".join(item if isinstance(item, str) else json.dumps(item) for item in items)
        path = write(tmp_path / "a.jsonl", lines)
        assert detect_format(path) == name
        reading = read_chats(path)
        assert turns(reading.conversations[-1]) == [("user", "やあ"), ("assistant", "おはよ")]
        assert len(reading.conversations) + len(reading.quarantine) == len(items)
    assert detect_format(write(tmp_path / "b.json", [5, {"conversations": PAIR}])) == "sharegpt"
    assert detect_format(write(tmp_path / "c.json", {"messages": [5, {"date_unixtime": "1"}]})) == "telegram"


def test_rows_with_a_comma_or_a_mark_too_many_leave_the_others(tmp_path):
    rows = ["speaker,text", "みお,ねえ, きいて", "健,やあ", "みお,おはよ, ね", "みお,おはよ", '健,"' + "あ" * 140_000]
    text = "\n".join([*rows, '健,5" だよ', 'みお,"え\n5?"\n'])
    reading = read_chats(write(tmp_path / "t.csv", text), companion="みお")
    assert [m for c in reading.conversations for _, m in turns(c)] == ["やあ", "おはよ", '5" だよ', "え\n5?"]
    reasons = {b.line: b.reason for b in reading.quarantine}
    assert list(reasons) == [2, 4, 6] and "3 cells" in reasons[2] + reasons[4] and "not in pairs" in reasons[6]


def test_what_cannot_be_read_as_a_whole_is_one_sentence_with_the_file(tmp_path):
    for name, content, reason in (
        ("a.json", "{", "a.json cannot be read: the document is not JSON"),
        ("b.csv", '"speaker,text\n健,やあ\n', "b.csv does not begin with the names of its columns"),
        ("c.json", {"chats": {"list": [1, 2]}}, "c.json holds 2 chats"),
        ("d.json", {"messages": 5, "channel": 1}, "d.json has no list of messages"),
        ("e.txt", "2024/04/30(火)\n", "e.txt holds no message that could be read"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_chats(write(tmp_path / name, content), companion="みお")
