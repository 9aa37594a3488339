"""Real chats: nothing without a consent, nobody recognisable, and nothing left once a consent is withdrawn."""

import pytest

from helpers.conversations import read_conversations, write_conversations
from helpers.data import consent, corpus
from helpers.data.real_chats import take_in_chats
from helpers.jsonl import BadLine, write_quarantine
from helpers.persona import load_persona
from helpers.settings import ROOT

TALK = """[LINE] 美緒とのトーク履歴
保存日時：2024/05/01 12:34

2024/04/30(火)
21:03\t健太\t美緒、今日さ、会社で三浦さんに怒られた
21:05\t美緒\tえ、また？ 健太は悪くないじゃん
21:06\t健太\t電話番号変わったから090-1234-5678に登録して
21:07\t美緒\tわかったよ。三浦さんってほんと怖いね

2024/05/02(木)
9:15\t健太\tおはよう
9:20\t美緒\tおはよ、昨日眠れた？
"""


@pytest.fixture
def export(tmp_path):
    file = tmp_path / "chats" / "talk.txt"
    file.parent.mkdir()
    file.write_text(TALK, encoding="utf-8")
    return file


def test_without_a_consent_nothing_is_read(export):
    with pytest.raises(consent.NoConsent, match=r"Nobody's consent is recorded for talk.txt: ask"):
        take_in_chats(export.parent, load_persona(), "美緒")
    consent.record(export, "kenta")
    export.write_text(TALK + "9:30\t健太\tうん\n", encoding="utf-8")
    with pytest.raises(consent.NoConsent, match="talk.txt has changed since kenta agreed"):
        take_in_chats(export.parent, load_persona(), "美緒")


def test_a_talk_becomes_conversations_in_which_nobody_is_recognised(export):
    consent.record(export, "kenta")
    chats = take_in_chats(export.parent, load_persona(), "美緒")
    first, second = chats.conversations
    said = "\n".join(m.content for c in chats.conversations for m in c.messages)
    for detail in ("美緒", "健太", "三浦", "1234"):
        assert detail not in said
    assert first.messages[0].content.count("さん") == 1
    assert {c.metadata.source for c in (first, second)} == {"kenta-1"}
    assert [c.id for c in (first, second)] == ["kenta-1-1", "kenta-1-2"]
    assert first.metadata.affection_level == "friend"
    assert chats.replaced["PHONE_NUMBER"] == 1 and chats.replaced["PERSON"] >= 4


def test_what_is_withdrawn_is_deleted_everywhere(export, tmp_path, capsys):
    consent.record(export, "kenta")
    chats = take_in_chats(export.parent, load_persona(), "美緒").conversations
    others = read_conversations(ROOT / "data" / "dialogues" / "sakura" / "day.jsonl").conversations
    data = tmp_path / "outputs" / "mine" / "01_data" / "train.jsonl"
    write_conversations(data, [others[0], *chats, *others[1:]])
    assert consent.forget("kenta-1", tmp_path / "outputs") == [data]
    assert [c.id for c in read_conversations(data).conversations] == [c.id for c in others]
    write_conversations(tmp_path / "big.jsonl", [*others, *chats])
    corpus.build([tmp_path / "big.jsonl"], data.parent / "corpus", load_persona())
    assert any(c.metadata.source == "kenta-1" for c in corpus.stream(data.parent / "corpus"))
    assert consent.forget("nobody-1", tmp_path / "outputs") == []
    quarantine = data.parent / "quarantine.jsonl"
    write_quarantine(quarantine, [BadLine("a", n, "r", c.model_dump_json()) for n, c in enumerate([*chats, others[0]])])
    assert consent.forget("kenta-1", tmp_path / "outputs") == [data.parent / "corpus", quarantine]
    assert not (data.parent / "corpus").exists() and len(quarantine.read_text("utf-8").splitlines()) == 1
    places = ["--folder", str(export.parent), "--outputs", str(tmp_path / "outputs")]
    assert consent.main(["withdraw", "kenta-1", *places]) == 0
    with pytest.raises(consent.NoConsent, match="kenta withdrew on"):
        take_in_chats(export.parent, load_persona(), "美緒")
    assert consent.main(["withdraw", "mio-1", *places]) == 1
    assert "There is no consent 'mio-1'" in capsys.readouterr().err


def test_the_command_line_records(export, capsys):
    assert consent.main(["record", str(export), "--by", "kenta"]) == 0
    assert "kenta-1" in capsys.readouterr().out
    assert consent.consent_for(export).given_by == "kenta"
    assert consent.main(["record", str(export.with_name("nothing.txt")), "--by", "kenta"]) == 1
    assert "nothing.txt" in capsys.readouterr().err


def test_whoever_withdraws_the_export_is_refused_and_forgotten_under_every_consent(export, tmp_path):
    consent.record(export, "kenta")
    consent.record(export, "mio")
    consent.record(export, "kenta")
    assert consent.consent_for(export).id == "kenta-2"
    chats = take_in_chats(export.parent, load_persona(), "美緒").conversations
    data = tmp_path / "outputs" / "mine" / "01_data" / "train.jsonl"
    write_conversations(data, chats)
    assert consent.require_consents(chats, export.parent) == ["kenta-2"]
    assert consent.withdraw(export.parent, "mio-1", tmp_path / "outputs") == [data]
    assert not data.read_text("utf-8")
    with pytest.raises(consent.NoConsent, match="mio withdrew on"):
        consent.consent_for(export)
    with pytest.raises(consent.NoConsent, match="rests on 'kenta-2', withdrawn on .* by mio"):
        consent.require_consents(chats, export.parent)


def test_a_withdrawal_holds_for_all_that_the_same_person_allowed_and_a_consent_given_anew_counts(export, tmp_path):
    consent.record(export, "kenta")
    consent.record(export, "kenta")
    consent.withdraw(export.parent, "kenta-1", tmp_path / "outputs")
    assert all(c.withdrawn_on for c in consent.read_consents(export.parent))
    with pytest.raises(consent.NoConsent, match="kenta withdrew on"):
        consent.consent_for(export)
    anew = consent.record(export, "kenta")
    assert consent.consent_for(export) == anew
    old, new = (
        consent.with_source(talk, given, 1)
        for talk in take_in_chats(export.parent, load_persona(), "美緒").conversations[:1]
        for given in (consent.read_consents(export.parent)[0], anew)
    )
    assert consent.require_consents([new], export.parent) == ["kenta-3"]
    with pytest.raises(consent.NoConsent, match="rests on 'kenta-1', withdrawn on"):
        consent.require_consents([old], export.parent)


def test_a_withdrawal_in_one_folder_is_not_hidden_by_the_same_id_in_another(export, tmp_path):
    talk = take_in_chats_of("kenta", export)
    for name in ("a", "b"):
        folder = export.parent / name
        folder.mkdir()
        (folder / "talk.txt").write_text(TALK + name, encoding="utf-8")
        consent.record(folder / "talk.txt", "kenta")
    consent.withdraw(export.parent / "a", "kenta-1", tmp_path / "outputs")
    with pytest.raises(consent.NoConsent, match="rests on 'kenta-1', withdrawn on"):
        consent.require_consents([talk], export.parent)


def take_in_chats_of(giver, export):
    consent.record(export, giver)
    return take_in_chats(export.parent, load_persona(), "美緒").conversations[0]
