"""Real chats: nothing without a consent, nobody recognisable, and nothing left once a consent is withdrawn."""

import json
import subprocess
import sys
import threading

import pytest

from helpers import records
from helpers.conversations import read_conversations, write_conversations
from helpers.course import locked
from helpers.data import consent, corpus, quality, real_chats
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


def a_run(outputs, name="mine", **record):
    """A run's folder in which 01 was given chats."""
    run = outputs / name
    (run / "01_data").mkdir(parents=True)
    settings = {"settings": {"chats": "chats"}}
    (run / "01_data" / "run.json").write_text(json.dumps({"status": "complete"} | settings | record))
    return run


def show(run, words):
    """What the runner leaves of executed notebooks, and JupyterLab beside one that was opened."""
    for place in ("01_data/01_data", "01_data/.ipynb_checkpoints/01_data-checkpoint", "03_lora/03_lora"):
        file = run / f"{place}.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"cells": [{"outputs": [words]}]}, ensure_ascii=False), encoding="utf-8")


def files_with(words, folder):
    return [file for file in folder.rglob("*") if file.is_file() and words.encode() in file.read_bytes()]


def a_process_that_is_no_more():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


def test_after_a_withdrawal_no_file_of_the_run_holds_the_words(export, tmp_path, capsys):
    consent.record(export, "kenta")
    talk = take_in_chats(export.parent, load_persona(), "美緒").conversations[0]
    words, outputs = talk.messages[1].content, tmp_path / "outputs"
    run, other = a_run(outputs), a_run(outputs, "other")
    data = run / "01_data"
    for name in ("train", "../02_augment/train"):
        write_conversations(data / f"{name}.jsonl", [talk])
    quality.write_dropped(data / "dropped.jsonl", [quality.Verdict(talk, [quality.Reason("r", "d")])])
    real_chats.write_left_out(data / "chats_left_out.jsonl", [real_chats.LeftOut("kenta-1", 1, "r", words)])
    write_quarantine(data / "quarantine.jsonl", [BadLine("a", 1, "r", talk.model_dump_json())])
    cut = f".train.jsonl.{a_process_that_is_no_more()}.part"
    (data / cut).write_text(talk.model_dump_json()[:200], encoding="utf-8")
    (data / "figures").mkdir()
    (data / "figures" / "raw_chats.png").write_bytes(b"png")
    for one in (run, other):
        show(one, words if one is run else "ほか")
    assert len(files_with(words, outputs)) == 9
    assert consent.main(["withdraw", "kenta-1", "--folder", str(export.parent), "--outputs", str(outputs)]) == 0
    assert files_with(words, outputs) == [] and not (data / "figures").exists()
    assert len([*other.rglob("*.ipynb")]) == 3, "of another run nothing is deleted"
    said = capsys.readouterr().out
    assert (
        "Executed notebooks of these runs" in said and "01_data.ipynb" in said and "withdraw kenta-1 once" not in said
    )


def test_a_run_whose_folder_is_a_link_or_lies_deeper_is_found(export, tmp_path):
    consent.record(export, "kenta")
    talk = take_in_chats(export.parent, load_persona(), "美緒").conversations[0]
    outputs = tmp_path / "outputs"
    files = [tmp_path / "disk" / "01_data" / "train.jsonl", outputs / "team" / "mine" / "01_data" / "train.jsonl"]
    for file in files:
        write_conversations(file, [talk])
    (outputs / "linked").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert len(consent.withdraw(export.parent, "kenta-1", outputs)) == 2
    assert not any(file.read_text("utf-8") for file in files)


def test_what_is_withdrawn_while_a_stage_runs_is_not_written_back(export, tmp_path, capsys):
    consent.record(export, "kenta")
    consent.record(export, "mio")
    chats = take_in_chats(export.parent, load_persona(), "美緒")
    assert chats.sources == ["mio-1"]
    rests_on, run = {str(export.parent): chats.sources}, a_run(tmp_path / "outputs", status="running")
    consent.ask_again(rests_on, run)
    show(run, chats.conversations[0].replies[0])
    places = ["--folder", str(export.parent), "--outputs", str(tmp_path / "outputs")]
    assert consent.main(["withdraw", "kenta-1", *places]) == 0
    assert "withdraw kenta-1 once more when it has ended" in capsys.readouterr().out
    write_conversations(run / "01_data" / "train.jsonl", chats.conversations)
    show(run, chats.conversations[0].replies[0])
    with pytest.raises(consent.NoConsent, match=r"\(kenta withdrew kenta-1 on .*delete the export, then run"):
        consent.ask_again(rests_on, run)
    assert files_with(chats.conversations[0].replies[0], run) == []


def test_a_consent_that_is_recorded_no_more_stands_no_more_and_another_folders_does_not_matter(export, tmp_path):
    """The bot deletes the folder of a user who takes everything back."""
    talk, run = take_in_chats_of("kenta", export), a_run(tmp_path / "outputs")
    below = export.parent / "old" / "talk.txt"
    below.parent.mkdir()
    below.write_text("other", encoding="utf-8")
    consent.record(below, "kenta")
    consent.withdraw(below.parent, "kenta-1", tmp_path / "none")
    rests_on = {str(export.parent): ["kenta-1"]}
    consent.ask_again(rests_on, run)
    write_conversations(run / "02_augment" / "train.jsonl", [talk])
    (export.parent / consent.FILE).unlink()
    with pytest.raises(consent.NoConsent, match="kenta-1 stands no more in"):
        consent.ask_again(rests_on, run)
    assert not (run / "02_augment" / "train.jsonl").read_text("utf-8")


def test_a_run_that_is_worked_on_is_named(tmp_path):
    run = a_run(tmp_path)
    assert consent.not_reached(tmp_path) == []
    with locked(run):
        assert records.at_work(run) and consent.not_reached(tmp_path) == [run]
    assert not records.at_work(run) and not records.at_work(tmp_path / "none")


def test_of_two_who_change_the_consents_at_once_neither_undoes_what_the_other_wrote(export):
    with consent._alone(export.parent):
        other = threading.Thread(target=consent.record, args=(export, "kenta"))
        other.start()
        other.join(0.3)
        assert other.is_alive() and consent.read_consents(export.parent) == []
    other.join(10)
    assert [c.id for c in consent.read_consents(export.parent)] == ["kenta-1"]


def take_in_chats_of(giver, export):
    consent.record(export, giver)
    return take_in_chats(export.parent, load_persona(), "美緒").conversations[0]
