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


def line(*said: str, day: str = "2026/01/04(日)") -> str:
    return "\n".join(["[LINE] 美緒とのトーク履歴", "", day, *(one.replace(" ", "\t", 2) for one in said), ""])


def read(path, text: str | dict, companion: str = "美緒"):
    """(turns of each conversation, reasons by line)."""
    reading = read_chats(write(path, text), companion=companion)
    return [turns(c) for c in reading.conversations], {b.line: b.reason for b in reading.quarantine}


OVERTIME = ("21:03 健太 今日も残業だった、つらい", "21:04 美緒 おつかれさま、ゆっくり休んで")
LAUGHS = "21:06 美緒 なにこれ、めっちゃ笑うんだけど！"
REST = ("21:07 健太 うちの猫だよ", "21:08 美緒 かわいい")
FIRST = [("user", "今日も残業だった、つらい"), ("assistant", "おつかれさま、ゆっくり休んで")]
CAT = [("user", "うちの猫だよ"), ("assistant", "かわいい")]


@pytest.mark.parametrize(
    "missing",
    ["健太 [写真]", "健太 [スタンプ]", "健太 ☎ 通話時間 1:02", "美緒 ☎ 通話時間 1:02", "健太 あ\0い",
     " 健太がメッセージの送信を取り消しました"],
)  # fmt: skip
def test_what_answers_a_picture_answers_nothing_else(tmp_path, missing):
    said, reasons = read(tmp_path / "talk.txt", line(*OVERTIME, f"21:05 {missing}", LAUGHS, *REST))
    assert said == [FIRST, CAT]
    assert list(reasons) == [6, 7] and reasons[7] == "it may answer what was left out before it"


def test_what_is_left_out_cuts_only_what_may_answer_it(tmp_path):
    def read_line(*said: str):
        return read(tmp_path / "talk.txt", line(*said))

    asked, answered = OVERTIME
    whole = [FIRST + CAT]
    # His picture before his words, and hers beside hers, are not what the next turn answers.
    assert read_line(*OVERTIME, "21:05 健太 [写真]", *REST)[0] == whole
    assert read_line(asked, "21:03 美緒 [写真]", answered, "21:05 美緒 [スタンプ]", *REST)[0] == whole
    assert read_line(asked, " ".join(["21:03", "", "美緒がメッセージの送信を取り消しました"]), answered)[0] == [FIRST]
    # A sticker behind his words adds to them; hers alone asks nothing.
    assert read_line(asked, "21:03 健太 [スタンプ]", answered, *REST)[0] == whole
    said, _ = read_line("21:02 健太 おはよ", "21:02 美緒 [スタンプ]", *OVERTIME)
    assert said == [[("user", "おはよ\n今日も残業だった、つらい"), FIRST[1]]]
    # His words and then his picture, her picture alone, a call: what follows is another talk.
    said, reasons = read_line(asked, "21:03 健太 [写真]", answered, *REST)
    assert said == [CAT] and reasons[4] == "what answers this was left out" and "may answer" in reasons[6]
    for missing in ("美緒 [写真]", "美緒 ☎ 通話時間 1:02"):
        said, reasons = read_line("21:02 健太 おはよ", f"21:02 {missing}", *OVERTIME, *REST)
        assert said == whole and reasons[4] == "what answers this was left out"
    assert read_line(*OVERTIME, "21:05 美緒 ☎ 通話時間 1:02", *REST)[0] == [FIRST, CAT]


def discord(name: str, content: object, **more) -> dict:
    author = {"name": name, "nickname": name}
    return {"type": "Default", "timestamp": "2026-01-04T21:00:00+09:00", "content": content, "author": author} | more


def telegram(name: str, text: object, **more) -> dict:
    return {"type": "message", "date": "2026-01-04T21:00:00", "date_unixtime": "1", "from": name, "text": text} | more


@pytest.mark.parametrize(
    ("say", "missing"),
    [
        (discord, discord("健太", "", attachments=[{"url": "a.png"}])),
        (discord, discord("健太", "", stickers=[{"name": "笑"}])),
        (discord, discord("美緒", "", type="Call")),
        (discord, 5),
        (telegram, telegram("健太", "", photo="a.jpg")),
        (telegram, telegram("健太", "", media_type="sticker")),
        (telegram, {"type": "service", "actor": "美緒", "action": "phone_call", "text": ""}),
        (telegram, telegram("健太", "見て", date="いつか")),
        ("{},{},2026-01-04 21:00", "健太,,2026-01-04 21:00"),
        ("{},{},2026-01-04 21:00", '健太,"見て,2026-01-04 21:00'),
        ("{},{},2026-01-04 21:00", "健太,見て, ほら,2026-01-04 21:00"),
        ("{},{},2026-01-04 21:00", "健太,見て,いつか"),
        ("{},{},2026-01-04 21:00", "健太"),
    ],
)
def test_what_answers_what_was_left_out_is_no_reply_in_any_format(tmp_path, say, missing):
    written = [one.split(" ", 1)[1].split(" ", 1) for one in (*OVERTIME, LAUGHS, *REST)]
    if isinstance(say, str):
        rows = [say.format(*one) for one in written]
        file, exported = "t.csv", "\n".join(["speaker,text,time", *rows[:2], missing, *rows[2:]])
    else:
        messages = [say(*one) for one in written]
        exported = {"messages": [*messages[:2], missing, *messages[2:]]}
        file, exported = "t.json", exported | ({"guild": {}} if say is discord else {})
    said, reasons = read(tmp_path / file, exported)
    assert said == [FIRST, CAT]
    assert [*reasons.values()][1:] == ["it may answer what was left out before it"] and len(reasons) == 2
    if say is discord and isinstance(missing, dict) and missing.get("stickers"):
        messages = [messages[0], missing, *messages[1:2]]
        assert read(tmp_path / file, exported | {"messages": messages})[0] == [FIRST]


def test_a_day_or_a_schedule_in_a_quotation_belongs_to_it(tmp_path):
    first, last = "21:01 美緒 うん", "21:05 美緒 絶対いく"
    for head, gap in (("2026/01/04(日)", "\t"), ("2026.01.04 日曜日", " ")):
        plan = f"日程出たよ\n2026/12/24\n2026/12/25(金)\n2026.12.26 土曜日\n12:30{gap}ランチ{gap}予約済み\n絶対行こうね"
        text = line("21:00 健太 ねえ", first, f'21:03 健太 "{plan}"', last, day=head).replace("\t", gap)
        want = [("user", "ねえ"), ("assistant", "うん"), ("user", plan), ("assistant", "絶対いく")]
        assert read(tmp_path / "talk.txt", text) == ([want], {})
    # A mark that opens nothing takes nobody's words.
    text = line("21:00 健太 ねえ", first, '21:03 健太 "無理です', '21:05 美緒 って、誰の"')
    assert read(tmp_path / "talk.txt", text)[0][0][2:] == [("user", '"無理です'), ("assistant", 'って、誰の"')]


def test_a_day_without_its_weekday_is_in_a_message_where_heads_have_one(tmp_path):
    said = ("21:00 健太 日程出たよ", "2026/12/24", "絶対行こうね", "21:05 美緒 うん")
    for head, gap in (("2026/01/04(日)", "\t"), ("2026.01.04 日曜日", " "), ("Sun, 01/04/2026", "\t")):
        text = line(*said, day=head).replace("\t", gap)
        assert read(tmp_path / "talk.txt", text) == (
            [[("user", "日程出たよ\n2026/12/24\n絶対行こうね"), ("assistant", "うん")]],
            {},
        )
    bare = "2026/01/04\n21:00\t健太\tねえ\n21:05\t美緒\tうん\n"
    assert len(read(tmp_path / "talk.txt", bare + bare.replace("01/04", "01/05"))[0]) == 2


PC = """2026.01.04 日曜日
21:00 健 ねえ
21:01 美緒 なに
21:03 健 明日の予定
10:00 集合
12:30 ランチ 予約済み
22:00 移動 バス
23:00 {} 電車
23:30 花火
25:30 終電 なし
21:05 美緒 了解
21:06 健がアルバムを作成しました
21:06 背景画像を変更しました
21:06 あなたがメッセージの送信を取り消しました
"""
PLAN = "明日の予定\n10:00 集合\n12:30 ランチ 予約済み\n22:00 移動 バス\n23:00 {} 電車\n23:30 花火\n25:30 終電 なし"


@pytest.mark.parametrize(
    ("head", "word"),
    [("", "寝る"), ("[LINE] 健とのトーク履歴\n", "移動"), ("[LINE] Chat history with 美緒\n", "移動")],
)
def test_a_schedule_in_a_talk_from_a_pc_is_nobody(tmp_path, head, word):
    said, reasons = read(tmp_path / "pc.txt", head + PC.format(word))
    want = [("user", "ねえ"), ("assistant", "なに"), ("user", PLAN.format(word)), ("assistant", "了解")]
    assert said == [want] and len(reasons) == 3 and all("notice" in reason for reason in reasons.values())


def test_who_speaks_once_is_a_speaker_where_it_is_not_known_that_two_talk(tmp_path):
    _, reasons = read(tmp_path / "pc.txt", PC.format("寝る") + "21:07 父 めし\n21:08 父 はやく\n")
    assert "more than two" in reasons[2]
    said, _ = read(tmp_path / "pc.txt", "2026.01.04 日曜日\n21:03 健 やあ\n21:04 美緒 うん\n21:05 健が退出しました\n")
    assert said == [[("user", "やあ"), ("assistant", "うん")]]


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


@pytest.mark.parametrize(
    "time",
    ["2026/1/4 9:03", "2026/1/4 9:03:05", "2026/1/4 9:03 AM", "2026-1-4 9:03", "2026/1/4(日) 午前9:03",
     "2026年1月4日 9時03分", "2026年1月4日9時3分5秒", "2026/01/04 09:03", "2026-01-04T09:03:05+09:00"],
)  # fmt: skip
def test_times_as_excel_writes_them(tmp_path, time):
    rows = (f"健,やあ,{time}", "美緒,おはよ,2026/1/4 14:00", "健,ねえ,2026/1/4 20:30", "美緒,なに,2026/1/4 20:31", "")
    table = "speaker,text,time\n" + "\n".join(rows)
    said, reasons = read(tmp_path / "t.csv", table)
    assert said == [[("user", "やあ"), ("assistant", "おはよ")], [("user", "ねえ"), ("assistant", "なに")]]
    assert not reasons
    _, reasons = read(tmp_path / "t.csv", table + "健,ん,2026/1/4 25:03\n健,ん,2026/2/30 9:03\n健,ん,9:03\n")
    assert list(reasons) == [6, 7, 8] and all("its time" in reason for reason in reasons.values())


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
