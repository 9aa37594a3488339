"""Dialogues in any number: nothing lost, nothing twice, and an interrupted build goes on."""

import json

import pytest
from datasets import load_dataset

from helpers.conversations import read_conversations, write_conversations
from helpers.data import corpus
from helpers.data.moderation import moderate
from helpers.data.reserved import Reserved
from helpers.data.split import first_turn
from helpers.jsonl import MAX_LINE_BYTES, cut, read_records, values_in
from helpers.settings import ROOT

WRITTEN = [c for c in read_conversations(ROOT / "data" / "dialogues" / "sakura").conversations if not moderate(c)]


def retold(conversation, name: str, ending: str):
    """The conversation with its last reply said a little differently."""
    last = conversation.messages[-1]
    messages = [*conversation.messages[:-1], last.model_copy(update={"content": last.content + ending})]
    return conversation.model_copy(update={"id": name, "messages": messages})


def lines_of(folder, kind: str) -> list[dict]:
    return [
        json.loads(line) for file in sorted((folder / kind).glob("*.jsonl")) for line in file.open(encoding="utf-8")
    ]


@pytest.fixture
def source(tmp_path):
    """A hundred dialogues, and among them what must be left out."""
    talks = WRITTEN[:100]
    extra = [
        retold(talks[3], "again", "うん"),
        talks[50].model_copy(update={"id": talks[7].id}),
    ]
    write_conversations(tmp_path / "big.jsonl", [*talks, *extra])
    with (tmp_path / "big.jsonl").open("ab") as file:
        file.write(b'{"messages": [\n')
        file.write(json.dumps({"messages": [{"role": "user", "content": "もしもし"}]}, ensure_ascii=False).encode())
    return tmp_path / "big.jsonl"


def test_pieces_hold_every_line_once_with_its_number(tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"".join(b'{"id": %d}\n' % n for n in range(200)) + b'"%s"\n{}' % (b"x" * (MAX_LINE_BYTES + 5)))
    pieces = list(cut(file, 300))
    assert len(pieces) > 5 and [p.start for p in pieces[1:]] == [p.end for p in pieces[:-1]]
    whole = [(n, text) for n, text, _ in values_in(file)]
    assert [(n, text) for piece in pieces for n, text, _ in values_in(piece)] == whole and len(whole) == 202
    assert sum(1 for _ in read_records(pieces, lambda value, name: 1 / 0 if value is None else _Named(name))) == 202


class _Named:
    def __init__(self, name: str):
        self.id = name


def test_what_is_left_out_has_a_reason_and_the_rest_is_there_once(source, tmp_path, card, monkeypatch):
    monkeypatch.setattr(corpus, "PIECE_BYTES", 20_000)
    known = [retold(WRITTEN[20], "by-hand", "ね")]
    reserved = Reserved(openings=frozenset({first_turn(WRITTEN[30])}))
    built = corpus.build([source], tmp_path / "corpus", card, known, reserved)
    kept = list(corpus.stream(tmp_path / "corpus"))
    assert built.read == 104 and built.kept == len(kept) == 98
    assert kept[:3] == WRITTEN[:3] and len({c.id for c in kept}) == len(kept)
    dropped = {line["conversation"]["id"]: line["reasons"][0] for line in lines_of(tmp_path / "corpus", "dropped")}
    assert dropped["again"]["rule"] == "near duplicate" and WRITTEN[3].id in dropped["again"]["detail"]
    assert dropped[WRITTEN[7].id]["rule"] == "id" and "used before" in dropped[WRITTEN[7].id]["detail"]
    assert dropped[WRITTEN[20].id]["rule"] == "near duplicate" and "by-hand" in dropped[WRITTEN[20].id]["detail"]
    assert dropped[WRITTEN[30].id]["rule"] == "reserved"
    assert [(line["file"], line["line"]) for line in lines_of(tmp_path / "corpus", "quarantine")] == [
        ("big.jsonl", 103),
        ("big.jsonl", 104),
    ]
    files = sorted(map(str, (tmp_path / "corpus" / "data").glob("*.parquet")))
    assert len(files) > 3 and len(load_dataset("parquet", data_files=files, split="train")) == 98


def test_an_interrupted_build_goes_on_and_another_source_starts_anew(source, tmp_path, card, monkeypatch):
    monkeypatch.setattr(corpus, "PIECE_BYTES", 40_000)
    folder, compare = tmp_path / "corpus", corpus._duplicates
    monkeypatch.setattr(corpus, "_duplicates", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        corpus.build([source], folder, card)
    with pytest.raises(FileNotFoundError, match="no finished corpus"):
        next(corpus.stream(folder))
    last = sorted((folder / "checked").glob("*.parquet"))[-1]
    last.unlink()  # as if it had been under way
    times = {file: file.stat().st_mtime_ns for file in (folder / "checked").glob("*.parquet")}
    monkeypatch.setattr(corpus, "_duplicates", lambda *given: (_same_times(times), compare(*given))[1])
    built = corpus.build([source], folder, card)
    assert built.kept == 100 and built == corpus.build([source], folder, card), "a finished one is not made again"
    monkeypatch.setattr(corpus, "_duplicates", compare)
    source.write_bytes(source.read_bytes().splitlines(keepends=True)[0])
    assert corpus.build([source], folder, card).read == 1


def test_files_of_one_name_a_folder_inside_and_a_crowd_of_equals(tmp_path, card):
    """Dialogues without an id; of forty equals one stays, though the first of them is not it."""
    for place, talks in (("2024", WRITTEN[:3]), ("2025", WRITTEN[3:6])):
        lines = [
            {"messages": c.model_dump()["messages"], "metadata": {"affection_level": c.metadata.affection_level}}
            for c in talks
        ]
        (tmp_path / "in" / place).mkdir(parents=True)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (tmp_path / "in" / place / "part.jsonl").write_text(text, encoding="utf-8")
    out = tmp_path / "in" / "corpus"
    files = sorted((tmp_path / "in").rglob("*.jsonl"))
    built = corpus.build(files, out, card)
    assert built.read == 6 and "id" not in built.left_out and "bad line" not in built.left_out
    assert built.kept == 6
    assert corpus.build(sorted((tmp_path / "in").rglob("*.jsonl")), out, card) == built, "its own files are not read"

    crowd = [retold(WRITTEN[10], f"equal-{n}", "うん" if n else "") for n in range(40)]
    crowd[0] = crowd[0].model_copy(update={"id": WRITTEN[50].id})
    write_conversations(tmp_path / "crowd.jsonl", [WRITTEN[50], WRITTEN[51]])
    write_conversations(tmp_path / "equals.jsonl", crowd)
    built = corpus.build([tmp_path / "crowd.jsonl", tmp_path / "equals.jsonl"], tmp_path / "[crowd]", card)
    assert built.kept == 3 and built.left_out == {"id": 1, "near duplicate": 38}
    assert [c.id for c in corpus.stream(tmp_path / "[crowd]")] == [WRITTEN[50].id, WRITTEN[51].id, "equal-1"]


def _same_times(times: dict) -> None:
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())


def test_a_folder_with_something_else_is_left_alone(source, tmp_path, card, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("unsaved", encoding="utf-8")
    (tmp_path / "mine" / "plan.txt").write_text("buy milk", encoding="utf-8")
    with pytest.raises(FileExistsError, match="name a new folder"):
        corpus.build([source], tmp_path / "mine", card)
    assert corpus.main([str(tmp_path / "nowhere.jsonl"), "--out", str(tmp_path / "new")]) == 1
    assert "There are no conversations" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").exists() and not (tmp_path / "new").exists()
