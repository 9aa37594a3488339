"""Hallway: schema and quarantine, persona card, settings, run records, files."""

import dataclasses
import json
import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from small import small_base
from transformers import AutoModelForCausalLM

from helpers import course, records, settings
from helpers.base_model import resolve_base_model
from helpers.conversations import Conversation, read_conversations
from helpers.files import sha256_folder, whole_folder, write_atomically
from helpers.persona import LEVELS, PersonaCard, load_persona, system_prompt

TURNS = [{"role": "user", "content": "やあ"}, {"role": "assistant", "content": "おはよ"}]


def test_bad_lines_are_set_aside_with_reasons_and_good_ones_kept(tmp_path):
    good = json.dumps({"id": "a", "messages": TURNS}, ensure_ascii=False).encode()
    lines = {
        "JSON": b'{"id": "b", "messages": [',
        "UTF-8": json.dumps({"id": "c", "messages": TURNS}, ensure_ascii=False).encode("cp932"),
        "role": b'{"messages": [{"role": "bot", "content": "x"}, {"role": "assistant", "content": "y"}]}',
        "empty": b'{"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "y"}]}',
        "where assistant's was due": json.dumps({"messages": [TURNS[0], TURNS[0]]}).encode(),
        "reply is missing": json.dumps({"messages": [*TURNS, TURNS[0]]}).encode(),
        "used before": good,
    }
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([good, *lines.values()]))
    reading = read_conversations(tmp_path)
    assert [c.id for c in reading.conversations] == ["a"]
    assert [b.line for b in reading.quarantine] == list(range(2, 9))
    for needle, bad in zip(lines, reading.quarantine, strict=True):
        assert needle in bad.reason, bad.reason


def test_the_guides_nested_document_is_read(tmp_path):
    meta = {"affection_level": "close_friend", "topics": ["仕事"], "emotions": ["sad", "supportive"]}
    document = {"conversations": [{"system": "あなたはさくら。", "messages": TURNS, "metadata": meta}]}
    (tmp_path / "guide.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    (conversation,) = read_conversations(tmp_path / "guide.json").conversations
    assert conversation.chat(load_persona())[0] == {"role": "system", "content": "あなたはさくら。"}
    assert conversation.metadata.affection_level == "close_friend"


def test_reading_nothing_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There are no conversations"):
        read_conversations(tmp_path / "nowhere.jsonl")


def test_every_hand_written_dialogue_is_sound(card):
    reading = read_conversations(settings.ROOT / "data" / "dialogues" / "sakura")
    assert not reading.quarantine
    assert len(reading.conversations) >= 120
    for c in reading.conversations:
        assert set(c.metadata.emotions) <= set(card.emotions), c.id
        assert all(len(reply) <= card.max_reply_chars for reply in c.replies), c.id
    replies = [r for c in reading.conversations for r in c.replies if len(r) > 6]
    assert len(set(replies)) == len(replies)
    assert {c.metadata.affection_level for c in reading.conversations} == set(LEVELS)


def test_system_prompt_differs_by_level_emotion_and_memory_and_by_nothing_else(card):
    prompts = {system_prompt(card, level) for level in LEVELS}
    assert len(prompts) == len(LEVELS)
    base = system_prompt(card, "friend")
    assert system_prompt(card, "friend", "sad").startswith(base)
    assert "犬の名前はモカ" in system_prompt(card, "friend", None, ["犬の名前は\nモカ"]).splitlines()[-1].replace(
        " ", ""
    )
    with pytest.raises(ValueError, match="enemy"):
        system_prompt(card, "enemy")


def test_a_persona_under_age_is_refused(card):
    with pytest.raises(ValueError, match="age"):
        PersonaCard.model_validate(card.model_dump(by_alias=True) | {"age": 17})


def test_unknown_parameters_are_errors_with_the_nearest_name():
    with pytest.raises(settings.UnknownParameter, match="learning_rate"):
        settings.resolve("03_lora", {"profile": "smoke", "In": ["# Parameters\nlearning_rat = 1.0\n"]})
    with pytest.raises(settings.UnknownParameter, match="no profile"):
        settings.resolve("03_lora", {"profile": "huge"})


@pytest.mark.parametrize(
    ("stage", "given", "words"),
    [
        ("03_lora", {"method": "LoRA"}, "method is one of lora, full"),
        ("03_lora", {"learning_rate": "fast"}, "learning_rate takes a number"),
        ("06_merge_quantize", {"adapter": "lora"}, "adapter is one of 03_lora, 04_qlora, 05_dpo"),
    ],
)
def test_a_value_that_a_parameter_cannot_take_is_one_sentence(stage, given, words):
    with pytest.raises(settings.BadValue, match=words):
        settings.resolve(stage, {"profile": "smoke"} | given)


def test_a_list_can_be_given_as_words():
    assert settings.resolve("06_merge_quantize", {"profile": "smoke", "schemes": "gptq"}).schemes == ("gptq",)


def test_a_parameter_left_at_none_has_the_profiles_value():
    cfg = settings.resolve("03_lora", {"profile": "smoke", "lora_r": None, "epochs": 7})
    assert (cfg.lora_r, cfg.epochs, cfg.base_model) == (4, 7, "tiny")


@pytest.mark.parametrize(
    ("listed", "cuda", "why"),
    [
        (None, None, "there is no CUDA GPU"),
        ("No devices found", "13.0", "there is no CUDA GPU"),
        ("GPU 0: H100", None, "is a build for CPUs: `make distclean`"),
        ("GPU 0: H100", "13.0", "its driver is too old for CUDA 13.0, or CUDA_VISIBLE_DEVICES hides it"),
    ],
)
def test_a_gpu_that_is_there_and_not_used_is_not_called_missing(listed, cuda, why, monkeypatch):
    def listing(command, **_):
        if listed is None:
            raise FileNotFoundError(command[0])
        return SimpleNamespace(stdout=listed)

    monkeypatch.setattr("helpers.settings.subprocess.run", listing)
    monkeypatch.setattr("torch.version.cuda", cuda)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("COMPANION_PROFILE", raising=False)
    assert why in settings.choose_profile()[1]


@pytest.mark.parametrize("name", ["20261130", "2026_11_30", "2026-11-30", "1e5", "nan", "true", "007", "a: b", "{x"])
def test_text_that_looks_like_something_else_stays_text(name):
    words = [f"run_name={name}", f"full_run={name}", f'persona="{name}"', f"judge_model={name}"]
    given = settings.given_parameters(words)
    assert set(given.values()) == {name}
    assert settings.resolve("08_evaluate", given).run == settings.OUTPUTS / name
    assert settings.given_parameters(['companion="さくら": 友達']) == {"companion": '"さくら": 友達'}


def test_what_is_no_text_is_read_as_yaml():
    words = ["learning_rate=5e-4", "epochs=2", "packing=true", "max_rows=null", "token_budget=9", "beta=0.1"]
    assert list(settings.given_parameters(words).values()) == [5e-4, 2, True, None, 9, 0.1]
    assert set(settings.given_parameters(["chats=", "corpus=null", "run_name=~", "gguf="]).values()) == {None}
    for word in ("schemes=[gptq", 'run_name="x'):
        with pytest.raises(settings.BadValue, match="its quotes or brackets do not match"):
            settings.given_parameters([word])


def test_a_base_model_that_does_not_exist_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, words in (
        ("nobody/no-such-model", "There is no base model 'nobody/no-such-model'"),
        ("no model at all", "There is no base model"),
        (str(tmp_path), "config.json is missing"),
    ):
        with pytest.raises(FileNotFoundError, match=words) as error:
            resolve_base_model(name)
        assert "\n" not in str(error.value)


def test_a_base_models_hash_is_of_the_weights_and_the_vocabulary_that_are_loaded(tmp_path):
    old = ("*.safetensors", "config.json", "tokenizer.json")
    base = small_base(tmp_path)
    for name in ("pytorch_model.bin", "tokenizer.model", "vocab.json"):
        (tmp_path / name).write_text("not loaded")
    assert resolve_base_model(str(tmp_path)).sha256 == base.sha256 == sha256_folder(tmp_path, old)

    weights, found = load_file(tmp_path / "model.safetensors"), {base.sha256}

    def differs():
        before = len(found)
        found.add(resolve_base_model(str(tmp_path)).sha256)
        return len(found) == before + 1

    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert differs()
    name = "model.norm.weight"
    torch.save(weights | {name: weights[name] + 1}, tmp_path / "pytorch_model.bin")
    assert AutoModelForCausalLM.from_pretrained(tmp_path).get_parameter(name).mean() == 2, "these are loaded"
    assert differs()
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "pytorch_model-00001-of-00001.bin")
    assert differs()
    (tmp_path / "tokenizer.json").unlink()
    assert differs()
    for name in ("tokenizer.model", "vocab.json", "merges.txt"):
        (tmp_path / name).write_text("another vocabulary")
        assert differs(), name


def test_the_next_stage_refuses_what_is_missing_interrupted_or_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    cfg = settings.resolve("01_data", {"profile": "smoke"})
    with pytest.raises(records.MissingStage, match="01_data.*has not been run"):
        records.load(cfg.run, "01_data")
    stage = records.start(cfg)
    with pytest.raises(records.MissingStage, match="was interrupted"):
        records.load(cfg.run, "01_data")
    write_atomically(cfg.folder / "train.jsonl", "x")
    record = stage.finish({"kept": 1}, ["train.jsonl"])
    assert record["peak_memory_bytes"] > 0
    assert records.load(cfg.run, "01_data").record["metrics"] == {"kept": 1}
    (cfg.folder / "train.jsonl").write_text("y")
    with pytest.raises(records.Mismatch, match="train.jsonl"):
        records.load(cfg.run, "01_data")


def test_a_finished_stage_stands_until_it_is_run_again_and_changes_something(tmp_path, monkeypatch):
    for module in (settings, course):
        monkeypatch.setattr(module, "OUTPUTS", tmp_path)
    cfg = settings.resolve("01_data", {"profile": "smoke"})
    for name in ("smoke", "later"):
        first = records.start(settings.resolve("01_data", {"profile": "smoke", "run_name": name}))
        write_atomically(first.folder / "train.jsonl", "x")
        first.finish({"kept": 1}, ["train.jsonl"])
    os.utime(cfg.folder / "run.json", (0, 0))
    assert course.newest_run().name == "later"
    written = (cfg.folder / "run.json").read_bytes()
    again = records.start(cfg)
    assert (cfg.folder / "run.json").read_bytes() == written and records.load(cfg.run, "01_data").sha256
    assert course.newest_run() == cfg.run, "it is worked on"
    again.writes()
    with pytest.raises(records.MissingStage, match="was interrupted"):
        records.load(cfg.run, "01_data")
    with pytest.raises(records.MissingStage, match="was interrupted"):
        records.start(cfg)
        records.load(cfg.run, "01_data")
    again.finish({"kept": 2}, ["train.jsonl"])
    assert records.load(cfg.run, "01_data").record["metrics"] == {"kept": 2}


def test_a_stage_made_with_another_base_model_or_template_is_refused(tmp_path, monkeypatch, tiny, tokenizer):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    first = records.start(settings.resolve("03_lora", {"profile": "smoke"}))
    first.uses(tiny, tokenizer)
    (first.folder / "model").mkdir()
    first.finish({}, ["model"])
    second = records.start(settings.resolve("05_dpo", {"profile": "smoke"}))
    second.uses(tiny, tokenizer)
    with pytest.raises(records.MissingStage, match="method='lora'"):
        _ = second.reads("03_lora").adapter
    second.uses(dataclasses.replace(tiny, sha256="0"), tokenizer)
    with pytest.raises(records.Mismatch, match="another base model"):
        second.reads("03_lora")
    other = tiny.load_tokenizer()
    other.chat_template += " "
    second.uses(tiny, other)
    with pytest.raises(records.Mismatch, match="another chat template"):
        second.reads("03_lora")


def test_a_run_is_one_personas_and_another_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)

    def begin(stage: str, persona: str) -> records.Stage:
        return records.start(settings.resolve(stage, {"profile": "smoke", "run_name": "his", "persona": persona}))

    for stage in ("01_data", "08_evaluate"):
        begin(stage, "seiji").finish({}, [])
    kept = (tmp_path / "his" / "08_evaluate" / "run.json").read_text(encoding="utf-8")
    with pytest.raises(records.Mismatch) as refusal:
        begin("08_evaluate", "sakura")
    assert str(refusal.value) == (
        "Run 'his' was made for the persona seiji, not for sakura: give persona=seiji, or take another run."
    )
    assert (tmp_path / "his" / "08_evaluate" / "run.json").read_text(encoding="utf-8") == kept
    assert begin("02_augment", "data/personas/seiji.yaml").reads("01_data"), "the same card, by its path"
    begin("01_data", "sakura").finish({}, [])
    with pytest.raises(records.Mismatch, match="08_evaluate of run 'his' was made with another persona"):
        begin("02_augment", "sakura").reads("08_evaluate")


def test_a_record_that_names_the_persona_in_its_settings_alone_is_read_as_if_it_had_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    records.start(settings.resolve("01_data", {"profile": "smoke", "persona": "seiji"})).finish({}, [])
    file = tmp_path / "smoke" / "01_data" / "run.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "persona"}))
    assert records.load(tmp_path / "smoke", "01_data").record["persona"] == "seiji"
    with pytest.raises(records.Mismatch, match="made for the persona seiji, not for sakura"):
        records.require_persona(tmp_path / "smoke", "sakura")


def test_nothing_half_written_takes_the_old_ones_place(tmp_path):
    target = tmp_path / "adapter"
    with whole_folder(target) as part:
        (part / "a").write_text("old")
    with pytest.raises(RuntimeError), whole_folder(target) as part:
        (part / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_conversation_round_trip():
    c = Conversation.model_validate({"id": "a", "messages": TURNS})
    assert Conversation.model_validate_json(c.model_dump_json(exclude_none=True)) == c
