"""A talk that two people really had, through 01's own cells: many turns, a link, names, and what is left out."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from helpers import figures
from helpers.conversations import read_conversations, write_conversations
from helpers.data import consent, quality, real_chats, split
from helpers.data.quality import check_all
from helpers.data.real_chats import take_in_chats
from helpers.data.recognizers import ENTITIES
from helpers.data.stand_ins import stand_in
from helpers.jsonl import BadLine, write_quarantine
from helpers.persona import LEVELS, load_persona
from helpers.settings import ROOT

TALK = """[LINE] 美緒とのトーク履歴
保存日時：2024/05/01 12:34

2024/04/30(火)
21:03\t健太\t美緒、今日さ、三浦さんに会ったよ
21:05\t美緒\tえ、ほんと？ 元気だった？
21:06\t健太\tうん、元気そうだった。前に言ってた店どこだっけ
21:07\t美緒\tここだよ https://shop.example.jp/menu/12 おいしいよね
21:08\t健太\tありがと。今度行ってみる
21:08\t美緒\t[スタンプ]
21:09\t美緒\tうん、感想聞かせてね

2024/05/02(木)
9:15\t健太\tおはよう
9:20\t美緒\t俺はもう起きてるよ
9:21\t健太\t早いね
9:22\t美緒\t健太は寝すぎだよ
9:30\t健太\t三浦さんに電話するの忘れてた
"""
SEEN = """[LINE] 美緒とのトーク履歴

2024/06/01(土)
21:03\t翔\t電光掲示板の前で、しばらく目つぶってたんです
21:05\t美緒\tえ、なんで？ 眠かったの？

2024/06/03(月)
21:03\t翔\t俺、中2なんだけどさ
21:05\t美緒\tそっか、部活は何してるの？
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "chats"
    folder.mkdir()
    (folder / "talk.txt").write_text(TALK, encoding="utf-8")
    consent.record(folder / "talk.txt", "kenta")
    return folder


def everything(chats) -> str:
    return "\n".join([*(c.model_dump_json() for c in chats.conversations), *map(str, chats.left_out)])


def test_a_link_drops_no_talk_and_she_is_called_by_her_own_name(folder, card):
    chats = take_in_chats(folder, card, "美緒")
    good, bad = check_all(chats.conversations, card)
    assert good.passes, good.reasons
    assert [reason.rule for reason in bad.reasons] == ["first_person"]
    first = good.conversation
    assert len(first.messages) == 6 and first.messages[0].content.startswith("さくら、今日さ、")
    assert "example" not in first.replies[1] and "おいしいよね" in first.replies[1]
    for name in ("美緒", "健太", "三浦"):
        assert name not in everything(chats)


def test_no_stand_in_is_what_a_card_forbids():
    for card in (load_persona(), load_persona("seiji")):
        for entity in set(ENTITIES) - {"PERSON"}:
            for number in range(1, 13):
                replies = [f"見て、{stand_in(entity, 'みなと商事', number)} だよ", stand_in(entity, "", number)]
                rules = {r.rule for reply in replies for r in quality.check_reply("どこ？", reply, "friend", card)}
                assert not rules & {"markup", "mojibake", "emoji", "puppeteering"}, (entity, number)


def test_what_is_left_out_is_listed_without_names_and_goes_with_the_consent(folder, card, tmp_path):
    left_out = take_in_chats(folder, card, "美緒").left_out
    assert [(one.source, one.line) for one in left_out] == [("kenta-1", 10), ("kenta-1", 18)]
    assert "sticker" in left_out[0].reason and "nobody answered" in left_out[1].reason
    assert "電話するの忘れてた" in left_out[1].text and "さくら" in left_out[0].text
    file = tmp_path / "outputs" / "mine" / "01_data" / "chats_left_out.jsonl"
    real_chats.write_left_out(file, [*left_out, real_chats.LeftOut("mio-1", 1, "r", "t")])
    assert consent.withdraw(folder, "kenta-1", tmp_path / "outputs") == [file]
    assert [json.loads(line)["source"] for line in file.read_text("utf-8").splitlines()] == ["mio-1"]


def test_another_bots_prompt_is_dropped_with_the_names_in_it(folder, card):
    (folder / "talk.txt").unlink()
    said = [{"role": "system", "content": "あなたは恋人の三浦美緒。相手は健太"}]
    said += [{"role": "user", "content": "おはよ"}, {"role": "assistant", "content": "おはよう、よく眠れた？"}]
    (folder / "bot.jsonl").write_text(json.dumps({"messages": said}), encoding="utf-8")
    consent.record(folder / "bot.jsonl", "kenta")
    (taken,) = take_in_chats(folder, card).conversations
    assert taken.system is None and "三浦" not in taken.model_dump_json()
    assert "さくら" in taken.chat(card)[0]["content"] and "三浦" not in taken.chat(card)[0]["content"]


def test_a_talk_in_which_the_anonymiser_still_finds_something_is_left_out(folder, card, monkeypatch):
    monkeypatch.setattr(real_chats, "anonymise_conversation", lambda talk, **_: (talk, Counter()))
    chats = take_in_chats(folder, card, "美緒")
    assert [c.id for c in chats.conversations] == ["kenta-1-2"]  # in which 健太 could be a stand-in
    (left_out,) = (one for one in chats.left_out if one.line == 0)
    assert left_out.reason == "the anonymiser still finds a PERSON (turn 1)" and left_out.text == "(conversation 1)"


def test_an_export_that_cannot_be_read_leaves_the_others_and_its_format_can_be_named(folder, card):
    undated = "三浦とのトーク\n21:03\t健太\tただいま\n21:04\t美緒\tおかえり、疲れた？\n"
    (folder / "other.txt").write_text(undated, encoding="utf-8")
    (folder / "third.json").write_text("{", encoding="utf-8")
    for name in ("other.txt", "third.json"):
        consent.record(folder / name, "kenta")
    chats = take_in_chats(folder, card, "美緒")
    assert len(chats.conversations) == 2
    reasons = {one.source: one.reason for one in chats.left_out if one.line == 0}
    assert "looks like none of" in reasons["kenta-2"] and "not JSON" in reasons["kenta-3"]
    consent.record(folder / "other.txt", "kenta", "line")
    chats = take_in_chats(folder, card, "美緒")
    assert [c.replies for c in chats.conversations if c.metadata.source == "kenta-4"] == [["おかえり、疲れた？"]]
    assert "三浦" not in everything(chats)
    for name in ("talk.txt", "other.txt"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match="third.json cannot be read: the document is not JSON"):
        take_in_chats(folder, card, "美緒")


def test_the_cells_of_01(folder, card, tmp_path):
    notebook = json.loads((ROOT / "notebooks" / "01_data.ipynb").read_text(encoding="utf-8"))
    cells = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
    written = read_conversations(ROOT / "data" / "dialogues" / "sakura" / "day.jsonl").conversations
    paths = {"chats": folder, "reviews": ROOT / "data" / "reviews" / "raw_chats.yaml"}
    more = ("duplicate", "near duplicate", "minor")
    paths |= {"scenarios": ROOT / "data" / "scenarios" / "sakura"}
    (folder / "talk_june.txt").write_text(TALK.replace("今度行ってみる", "今度行くね"), encoding="utf-8")
    (folder / "seen.txt").write_text(SEEN, encoding="utf-8")
    for name in ("talk_june.txt", "seen.txt"):
        consent.record(folder / name, "mio")
    shares = {"validation_share": 0.2, "test_share": 0.1, "seed": 1}
    cfg = SimpleNamespace(chats=str(folder), companion="美緒", folder=tmp_path, path=paths.get, **shares)
    space = {
        **{"cfg": cfg, "card": card, "written": written, "wrapped": [], "raw": [], "LEVELS": LEVELS},
        **{"stage": SimpleNamespace(reads_data=lambda path: path), "made": SimpleNamespace(accepted=[])},
        **{"real_chats": real_chats, "quality": quality, "figures": figures, "split": split},
        **{"write_conversations": write_conversations},
    }
    for name in ("own-chats", "cell-17", "cell-19", "cell-20", "split-dialogues", "cell-23"):
        exec(cells[name], space)
    assert {row[0]: row[1] for row in space["rows"]} == {"first_person": 2} | dict.fromkeys(more, 1)
    assert space["rows"][0][3].count(" → ") == 3
    assert set(quality.count_by_rule(space["verdicts"])) == {"first_person", "scenario", *more}
    back = read_conversations(tmp_path / "train.jsonl").conversations
    assert [c.id for c in back if c.metadata.source == "kenta-1"] == ["kenta-1-1"]
    for file in ("train.jsonl", "dropped.jsonl", "chats_left_out.jsonl"):
        assert "三浦" not in (tmp_path / file).read_text(encoding="utf-8")
    assert len((tmp_path / "chats_left_out.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    space["parts"].train[0].messages[0].content = "電光掲示板の前で、しばらく目つぶってたんです"
    with pytest.raises(AssertionError, match="reword the hand-written dialogue"):
        exec(cells["split-dialogues"], space)


def test_a_file_of_bad_lines_is_forgotten_as_before(tmp_path):
    file = tmp_path / "01_data" / "quarantine.jsonl"
    write_quarantine(file, [BadLine("a", 1, "r", '{"metadata": {"source": "kenta-1"}'), BadLine("a", 2, "r", "[")])
    file.write_text(file.read_text("utf-8") + '{"text": "cut', encoding="utf-8")
    (tmp_path / "run").mkdir()
    file.parent.rename(tmp_path / "run" / "01_data")
    assert len(consent.forget("kenta-1", tmp_path)) == 1
    assert len((tmp_path / "run" / "01_data" / "quarantine.jsonl").read_text("utf-8").splitlines()) == 2
