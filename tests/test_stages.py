"""In stages: where each stage begins, what is not run again, what is forgotten."""

import dataclasses

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from talks import CHAT

from helpers import settings
from helpers.conversations import read_conversations
from helpers.data.quality import check_all
from helpers.data.split import first_turn
from helpers.persona import load_persona
from helpers.supervision import supervise
from helpers.train import sft, stages
from helpers.train.out_of_memory import OutOfMemory

SAID = {
    "general": ["錨を上げろ", "風が出てきたな", "港はまだか", "網を引け", "霧が深い", "灯台だ", "凪だな", "帰ろう"],
    "character": ["おかえり！", "えっとね", "まってた", "おなかすいた？", "ねむい？", "よかったね", "そっか", "うん！"],
    "user": [
        "おはぎ元気？",
        "校了おめでとう",
        "銭湯いこ",
        "麦茶のむ？",
        "自転車なおった？",
        "猫、寝た？",
        "水曜だね",
        "夜勤？",
    ],
}


@pytest.fixture(scope="module")
def cfg():
    given = {"profile": "smoke", "batch_size": 2, "max_steps": 3, "save_steps": 2, "stage_learning_rate": 5e-3}
    found = settings.resolve("03_lora", given)
    found.hardware = dataclasses.replace(found.hardware, dtype=torch.float32)
    return found


@pytest.fixture(scope="module")
def lessons(tokenizer):
    found = []
    for name, replies in SAID.items():
        rows = [supervise(tokenizer, [*CHAT[:2], {"role": "assistant", "content": reply}]) for reply in replies]
        found.append(stages.Lesson(name, rows[:6], rows[6:]))
    return found


@pytest.fixture(autouse=True)
def _checkpoints_without_a_tokenizer(tokenizer, monkeypatch):
    """It is 33 MB, and written at each of them."""
    monkeypatch.setattr(tokenizer, "save_pretrained", lambda *_, **__: ())


@pytest.fixture
def make(tiny, tokenizer, cfg, tmp_path):
    def make(folder: str = "stages", **given):
        lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        changed = settings.Settings(**(vars(cfg) | given))
        return stages.Stages(tiny, tokenizer, lora, changed, tmp_path / folder)

    return make


def _weights(adapter):
    return load_file(adapter / "adapter_model.safetensors")


def _same(one, other) -> bool:
    """Not to the bit: the order of a sum depends on where in memory its terms lie."""
    one, other = _weights(one), _weights(other)
    return all((one[name] - other[name]).norm() <= 1e-3 * one[name].norm() for name in one)


def test_each_stage_starts_from_the_adapter_before_it_and_says_so(make, lessons, monkeypatch):
    began = []
    teach = stages.teach

    def seen(policy, *arguments):
        began.append({n: p.detach().clone() for n, p in policy.named_parameters() if p.requires_grad})
        return teach(policy, *arguments)

    monkeypatch.setattr(stages, "teach", seen)
    done = make().run(lessons, 0.25)
    assert [stage.record["stage"] for stage in done] == ["base", "general", "character", "user"]
    for before, stage, weights in zip(done, done[1:], began, strict=False):
        start = stage.record["started_from"]
        assert start == {"folder": before.folder.name, "adapter_sha256": before.record["adapter_sha256"]}
        saved = _weights(before.adapter)
        for name, weight in weights.items():
            assert torch.equal(weight, saved[name.replace(".default", "")]), name
        assert not _same(before.adapter, stage.adapter)
        assert not (stage.folder / "checkpoints").exists()
    assert done[0].losses.keys() == set(SAID)
    assert all(gain > 0 for gain in stages.gained(done).values())


def test_the_loss_of_the_untrained_adapter_is_the_trainers_of_the_base(make, lessons, tiny, tokenizer, cfg, tmp_path):
    base = make().run(lessons[:1], 0)[0]
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = sft.load_base(tiny, cfg)
    trainer = sft.make_trainer(model, tokenizer, lessons[0].train, lessons[0].held_out, cfg, tmp_path / "t", lora)
    assert base.losses["general"] == pytest.approx(sft.validation_loss(trainer, "cpu"), rel=1e-4)


def test_what_has_not_changed_is_not_run_again(make, lessons, monkeypatch):
    runs = []
    teach = stages.teach
    monkeypatch.setattr(stages, "teach", lambda *a: runs.append(a[-1].name[0]) or teach(*a))
    first = make().run(lessons, 0.25)
    with monkeypatch.context() as patch:
        patch.setattr(sft, "load_base", None)  # not even the base is loaded
        assert make().run(lessons, 0.25) == first and runs == ["1", "2", "3"]
    runs.clear()
    other = [*lessons[:2], dataclasses.replace(lessons[2], train=lessons[2].train[:4])]
    both = make()
    again = both.run(other, 0.25)
    assert runs == ["3"] and again[:3] == first[:3], "only the stage whose data changed"
    both.run(other, 0)
    assert runs == ["3", "2", "3"], "without replay the first stage is the same"
    both.prune()
    assert not first[3].folder.exists() and again[3].folder.exists()

    runs.clear()
    damaged = again[2].adapter / "adapter_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert _same(make().run(other, 0.25)[2].adapter, again[2].adapter)
    assert runs[0] == "2"


def test_an_interrupted_sequence_goes_on_in_its_stage_and_ends_where_the_whole_one_does(make, lessons, monkeypatch):
    from transformers import TrainerCallback

    whole = make("whole").run(lessons, 0.25)

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if "2_character" in args.output_dir and state.global_step == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        plain = sft.make_trainer

        def killed(*arguments):
            trainer = plain(*arguments)
            trainer.add_callback(Kill())
            return trainer

        patch.setattr(sft, "make_trainer", killed)
        with pytest.raises(KeyboardInterrupt):
            make("cut").run(lessons, 0.25)
    steps = []
    plain_run = sft.run
    monkeypatch.setattr(sft, "run", lambda *a, **k: steps.append(plain_run(*a, **k)))
    cut = make("cut").run(lessons, 0.25)
    assert steps == [1, 3], "the second stage from its checkpoint at step 2, then the third"
    for one, other in zip(whole, cut, strict=True):
        assert one.record["stage"] == other.record["stage"]
        assert _same(one.adapter, other.adapter)
        assert one.losses == pytest.approx(other.losses, abs=1e-5)


def _runs_out(monkeypatch, holds: int) -> None:
    """Training, from now on, on a device that holds so many rows at once."""
    plain = sft.make_trainer

    def forward(model, args, kwargs):
        if len(kwargs["input_ids"]) > holds:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def make_trainer(*arguments):
        trainer = plain(*arguments)
        trainer.model.register_forward_pre_hook(forward, with_kwargs=True)
        return trainer

    monkeypatch.setattr(sft, "make_trainer", make_trainer)


def test_a_stage_that_runs_out_of_memory_stops_in_one_sentence_or_goes_on_in_smaller_bites(make, lessons, monkeypatch):
    whole = make("whole").run(lessons[:1], 0)[1]
    _runs_out(monkeypatch, holds=1)
    with pytest.raises(OutOfMemory, match="Out of memory at step 0: method lora with batch_size=2"):
        make("stopped").run(lessons[:1], 0)
    again = make("retried", on_out_of_memory="retry").run(lessons[:1], 0)[1]
    assert again.record["steps"] == whole.record["steps"] and _same(again.adapter, whole.adapter)


def test_the_loss_on_held_out_dialogues_runs_out_of_memory_in_one_sentence(make, lessons, monkeypatch):
    def burst(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", burst)
    with pytest.raises(OutOfMemory, match=r"Out of memory on the held-out dialogues, one row at a time .*max_length"):
        make().run(lessons[:1], 0)


def test_replay_is_a_seeded_share_drawn_evenly_from_the_lessons_before(lessons):
    rows, drawn = stages.mix(lessons[2].train, lessons[:2], 0.4, seed=1)
    assert drawn == {"general": 2, "character": 2} and len(rows) == 10
    assert rows[:6] == lessons[2].train
    assert all(row in lessons[0].train or row in lessons[1].train for row in rows[6:])
    assert stages.mix(lessons[2].train, lessons[:2], 0.4, seed=1)[0] == rows
    assert stages.mix(lessons[2].train, lessons[:2], 0.4, seed=2)[0] != rows
    assert stages.mix(lessons[0].train, [], 0.4, seed=1) == (lessons[0].train, {})
    _, drawn = stages.mix(lessons[2].train, lessons[:1], 0.9, seed=1)
    assert drawn == {"general": 6}, "no row twice"
    for share in (1, -0.1):
        with pytest.raises(settings.BadValue, match=r"replay is the share .* not (1|-0.1)\."):
            stages.mix(lessons[2].train, lessons[:2], share, seed=1)


def test_with_replay_less_is_forgotten(make, lessons):
    both = make(max_steps=8, save_steps=8)
    without, with_replay = both.run(lessons, 0), both.run(lessons, 0.5)
    assert with_replay[1] == without[1], "the first stage is shared"
    assert with_replay[3].record["replayed"] == {"general": 3, "character": 3}
    lost, kept = stages.forgotten(without), stages.forgotten(with_replay)
    assert lost.keys() == {"general", "character"}
    assert all(kept[name] < lost[name] for name in lost) and max(lost.values()) > 0


@pytest.mark.parametrize(("persona", "user", "dialogues"), [("sakura", "shino", 35), ("seiji", "minato", 12)])
def test_the_dialogues_with_one_user_are_sound_and_theirs(persona, user, dialogues):
    card = load_persona(persona)
    reading = read_conversations(settings.ROOT / "data" / "users" / persona / user)
    assert len(reading.conversations) == dialogues and not reading.quarantine
    assert [str(r) for v in check_all(reading.conversations, card) for r in v.reasons] == []
    others = read_conversations(settings.ROOT / "data" / "dialogues" / persona).conversations
    assert not {first_turn(c) for c in reading.conversations} & {first_turn(c) for c in others}
    assert len({first_turn(c) for c in reading.conversations}) == dialogues


def test_too_few_dialogues_to_hold_one_out_are_one_sentence(tokenizer, card):
    few = read_conversations(settings.ROOT / "data" / "users" / "sakura" / "shino").conversations[:2]
    with pytest.raises(settings.BadValue, match="The stage 'user' has 2 dialogues, too few to hold one out"):
        stages.lesson("user", tokenizer, [(card, few)], seed=0)
