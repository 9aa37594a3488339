"""Experts: from which dialogues and from where each is trained, what is not trained again, and who is asked."""

import dataclasses

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from talks import CHAT

from helpers import settings
from helpers.conversations import Conversation, Message, Metadata
from helpers.data.scenes import Talk, Turn
from helpers.supervision import supervise
from helpers.train import experts, sft, stages
from helpers.train.experts import scene_finder, scene_lessons, share_out, train_experts

SAID = {
    "casual": ["おかえり！", "そっか", "うん！", "カレーだね", "雨だよ", "ねむい？"],
    "emotional": ["つらかったね", "そばにいるよ", "泣いていいよ", "こわかったね", "ゆっくりでいいよ", "きいてるよ"],
    "romantic": ["わたしも好き", "会いたいな", "ずるいよ", "待ってる", "照れるってば", "だいすき"],
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
        found.append(stages.Lesson(name, rows[:4], rows[4:]))
    return found


@pytest.fixture(scope="module")
def hers(tiny, cfg, tmp_path_factory):
    torch.manual_seed(1)
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    folder = tmp_path_factory.mktemp("hers") / "adapter"
    stages.save_adapter(get_peft_model(sft.load_base(tiny, cfg), lora), folder)
    return folder


@pytest.fixture(autouse=True)
def _checkpoints_without_a_tokenizer(tokenizer, monkeypatch):
    """It is 33 MB, and written at each of them."""
    monkeypatch.setattr(tokenizer, "save_pretrained", lambda *_, **__: ())


@pytest.fixture
def train(tiny, tokenizer, cfg, hers, lessons, tmp_path):
    def train(folder: str = "experts", of=None, replay: float = 0.34):
        return train_experts(tiny, tokenizer, hers, of or lessons, cfg, tmp_path / folder, replay)

    return train


def _weights(adapter):
    return load_file(adapter / "adapter_model.safetensors")


def _same(one, other) -> bool:
    """Not to the bit: the order of a sum depends on where in memory its terms lie."""
    one, other = _weights(one), _weights(other)
    return all((one[name] - other[name]).norm() <= 1e-3 * one[name].norm() for name in one)


def _talk(*said: str, level: str = "friend") -> Conversation:
    messages = [
        m for text in said for m in (Message(role="user", content=text), Message(role="assistant", content="…"))
    ]
    return Conversation(id="/".join(said), messages=messages, metadata=Metadata(affection_level=level))


def test_each_expert_starts_from_her_adapter_on_its_share_and_some_of_the_others(train, hers, lessons, monkeypatch):
    began = []
    teach = stages.teach

    def seen(policy, tokenizer, rows, *more):
        began.append(({n: p.detach().clone() for n, p in policy.named_parameters() if p.requires_grad}, rows))
        return teach(policy, tokenizer, rows, *more)

    monkeypatch.setattr(stages, "teach", seen)
    done = train()
    assert list(done) == list(SAID)
    saved = _weights(hers)
    for (weights, rows), lesson in zip(began, lessons, strict=True):
        assert all(torch.equal(weight, saved[name.replace(".default", "")]) for name, weight in weights.items())
        assert rows[:4] == lesson.train and len(rows) == 6
        assert all(any(row in other.train for other in lessons if other is not lesson) for row in rows[4:])
        record = done[lesson.name].record
        assert sum(record["replayed"].values()) == 2 and lesson.name not in record["replayed"]
        assert record["losses"].keys() == record["losses_before"].keys() == set(SAID)
        assert record["losses"][lesson.name] < record["losses_before"][lesson.name]
        assert not _same(hers, done[lesson.name].adapter)
        assert not (done[lesson.name].folder / "checkpoints").exists()


def test_what_has_not_changed_is_not_trained_again(train, lessons, monkeypatch):
    taught = []
    teach = stages.teach
    monkeypatch.setattr(stages, "teach", lambda *a: taught.append(a[-1].name.split("_")[0]) or teach(*a))
    first = train()
    with monkeypatch.context() as patch:
        patch.setattr(sft, "load_base", None)  # not even the base is loaded
        assert train() == first and taught == list(SAID)
    taught.clear()
    damaged = first["romantic"].adapter / "adapter_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert _same(train()["casual"].adapter, first["casual"].adapter) and taught == ["romantic"]
    taught.clear()
    without = train(replay=0)
    assert taught == list(SAID) and not first["casual"].folder.exists(), "what no run of now uses is deleted"
    assert all(expert.record["replayed"] == {} for expert in without.values())


def test_an_interrupted_expert_goes_on_and_ends_where_the_whole_one_does(train, monkeypatch):
    from transformers import TrainerCallback

    whole = train("whole")

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if "emotional" in args.output_dir and state.global_step == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        plain = sft.make_trainer

        def killed(*arguments):
            trainer = plain(*arguments)
            trainer.add_callback(Kill())
            return trainer

        patch.setattr(sft, "make_trainer", killed)
        with pytest.raises(KeyboardInterrupt):
            train("cut")
    steps = []
    plain_run = sft.run
    monkeypatch.setattr(sft, "run", lambda *a, **k: steps.append(plain_run(*a, **k)))
    cut = train("cut")
    assert steps == [1, 3], "the second from its checkpoint at step 2, then the third"
    for name in SAID:
        assert _same(whole[name].adapter, cut[name].adapter)
        assert whole[name].losses == pytest.approx(cut[name].losses, abs=1e-5)


def test_a_dialogue_belongs_to_the_scene_of_most_of_its_turns():
    marks = ["romantic", None, "casual", "casual"]
    marked = Talk(
        id="a", affection_level="lover", turns=[Turn(text=str(i), scene=mark) for i, mark in enumerate(marks)]
    )
    scene_of = scene_finder([marked])
    assert scene_of(_talk("0", "1", "2", "3", level="lover")) == "casual", "as a person marked it"
    assert scene_of(_talk("会いたい", "大好きだよ", "ぎゅってして", level="lover")) == "romantic"
    assert scene_of(_talk("会いたい", "大好きだよ", "ぎゅってして", level="stranger")) != "romantic"
    assert scene_of(_talk("父が亡くなって、つらい", "涙が止まらない", "ひとりで泣いてる")) == "emotional"


def test_the_last_scene_breaks_a_tie():
    turns = [Turn(text="0", scene="casual"), Turn(text="1", scene="emotional")]
    scene_of = scene_finder([Talk(id="a", affection_level="friend", turns=turns)])
    assert scene_of(_talk("0", "1")) == "emotional"


def test_shares_hold_every_dialogue_once_or_the_shortest(card, tokenizer):
    asked = []

    def scene_of(conversation):
        asked.append(conversation)
        return {"c": "casual", "e": "emotional", "r": "romantic"}[conversation.messages[0].content[0]]

    talks = [_talk(scene + "あ" * n) for n in (5, 1, 3) for scene in "cer"] + [_talk("c" + "あ" * 90)]
    shares = share_out(talks, scene_of)
    assert [len(share) for share in shares.values()] == [4, 3, 3] and len(asked) == 10
    asked.clear()
    shares = share_out(talks, scene_of, most=2)
    assert [[len(t.messages[0].content) for t in share] for share in shares.values()] == [[2, 4]] * 3
    assert len(asked) == 6, "the longer ones are not even looked at"
    held_out = {"casual": talks[:1], "emotional": talks[1:2], "romantic": []}
    lessons = scene_lessons(tokenizer, card, shares, held_out)
    assert [(n.name, len(n.train), len(n.held_out)) for n in lessons] == [("casual", 2, 1), ("emotional", 2, 1)]


def test_no_scene_with_dialogues_is_one_sentence(card, tokenizer):
    empty = {scene: [] for scene in SAID}
    with pytest.raises(settings.BadValue, match="No scene has dialogues both to train on and to hold out"):
        scene_lessons(tokenizer, card, empty, empty)


def test_experts_are_whole_or_not_there(train, monkeypatch):
    def full(policy, folder):
        (folder.parent / "half").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stages, "save_adapter", full)
        with pytest.raises(OSError, match="No space"):
            train()
    done = train()
    assert all((expert.adapter / "adapter_model.safetensors").is_file() for expert in done.values())
    assert tuple(done) == experts.SCENES
