"""Every way of training, by the house's own trainers, goes the way that is stored for it."""

import dataclasses
import json

import pytest
import torch
import trajectories
from peft import LoraConfig, get_peft_model
from small import small_base
from talks import CHAT

from helpers import settings
from helpers.supervision import supervise
from helpers.train import dpo, losses, preferences, quantized, sft


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer(base):
    return base.load_tokenizer()


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A function from a stage and given parameters to settings for `trajectories.STEPS` steps in float32."""
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)

    def make(stage: str, **given):
        fixed = {"profile": "smoke", "max_steps": trajectories.STEPS, "batch_size": 2, "max_length": 4096, "epochs": 2}
        chosen = settings.resolve(stage, fixed | {"learning_rate": 1e-2} | given)
        chosen.hardware = dataclasses.replace(chosen.hardware, dtype=torch.float32)
        return chosen

    return make


def _lora(**variant) -> LoraConfig:
    torch.manual_seed(0)
    return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False, **variant)


SFT = {
    "sft-lora": {},
    "sft-rslora": {"use_rslora": True},
    "sft-dora": {"use_dora": True},
    "sft-full": {"method": "full"},
    "sft-nf4": {"quantization": "nf4"},
    "sft-int8": {"quantization": "int8"},
    "sft-packing": {"packing": True, "max_length": 700},
}


@pytest.mark.parametrize("name", SFT)
def test_sft_goes_its_stored_way(name, base, tokenizer, cfg, tmp_path):
    given = dict(SFT[name])
    bits = given.pop("quantization", None)
    variant = {key: given.pop(key) for key in ("use_rslora", "use_dora") if key in given}
    chosen = cfg("03_lora", **given)
    full = chosen.method == "full"
    quantization = quantized.QUANTIZATIONS[bits](chosen.hardware) if bits else None
    replies = ["おかえり", "おつかれさま。ごはんにする？", "えっとね、まず座って。お茶いれるから", "はあい"]
    rows = [supervise(tokenizer, [*CHAT[:2], {"role": "assistant", "content": reply}]) for reply in 2 * replies]
    model = sft.load_base(base, chosen, quantization, full)
    trainer = sft.make_trainer(
        model, tokenizer, rows, rows[:2], chosen, tmp_path / "run", None if full else _lora(**variant)
    )
    trajectories.check(name, trajectories.of(trainer))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_dpo_goes_its_stored_way(name, base, tokenizer, card, cfg, tmp_path):
    chosen = cfg("05_dpo", preference_loss=name)
    folder = settings.ROOT / "data" / "preferences" / "sakura"
    pairs, _ = preferences.read_preferences(folder, card, tmp_path / "bad.jsonl")
    get_peft_model(sft.load_base(base, chosen), _lora()).save_pretrained(tmp_path / "adapter")
    policy = dpo.load_policy(base, tmp_path / "adapter", chosen)
    trainer = dpo.make_trainer(policy, tokenizer, pairs[:6], pairs[6:8], card, chosen, tmp_path / "run")
    trajectories.check(f"dpo-{name}", trajectories.of(trainer))


def test_a_run_that_leaves_its_way_is_told_and_another_environment_is_never_passed_over(tmp_path, monkeypatch):
    def run(losses, norms, dtype="float32"):
        return {"losses": losses, "grad_norms": norms, "dtype": dtype}

    monkeypatch.setattr(trajectories, "FOLDER", tmp_path)
    monkeypatch.delenv("STORE_TRAJECTORIES", raising=False)
    with pytest.raises(AssertionError, match="No trajectory way is stored: run this test with STORE_TRAJECTORIES=1"):
        trajectories.check("way", run([2.0, 1.0], [3.0, 3.0]))
    with monkeypatch.context() as patch:
        patch.setenv("STORE_TRAJECTORIES", "1")
        trajectories.check("way", run([2.0, 1.0], [3.0, 3.0]))
    trajectories.check("way", run([2.0, 1.0], [3.0, 3.0]))
    with pytest.raises(AssertionError, match="way: the gradient norm of step 2 is 3.01, and 3 is stored"):
        trajectories.check("way", run([2.0, 1.0], [3.0, 3.01]))
    with pytest.raises(AssertionError, match="1 steps, and 2 are stored"):
        trajectories.check("way", run([2.0], [3.0]))
    with pytest.raises(AssertionError, match="trained in bfloat16, and float32 is stored"):
        trajectories.check("way", run([2.0, 1.0], [3.0, 3.0], "bfloat16"))

    elsewhere = trajectories.environment() | {"torch": "1.0"}
    monkeypatch.setattr(trajectories, "environment", lambda: elsewhere)
    with pytest.warns(trajectories.OtherEnvironment, match="2% only: here is torch 1.0"):
        trajectories.check("way", run([2.0, 1.0], [3.0, 3.01]))
    with (
        pytest.warns(trajectories.OtherEnvironment),
        pytest.raises(AssertionError, match="loss of step 1 is 2.2, and 2 is stored"),
    ):
        trajectories.check("way", run([2.2, 1.0], [3.0, 3.0]))
    with monkeypatch.context() as patch:
        patch.setenv("STORE_TRAJECTORIES", "1")
        trajectories.check("way", run([2.2, 1.0], [3.0, 3.0]))
    trajectories.check("way", run([2.2, 1.0], [3.0, 3.0]))
    assert len(json.loads((tmp_path / "way.json").read_text())) == 2, "the other environment's is kept"
