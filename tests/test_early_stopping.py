"""A run that ends when the validation loss rises keeps its best checkpoint, also when it is run again."""

import dataclasses
import shutil

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from talks import CHAT

from helpers import settings
from helpers.supervision import supervise
from helpers.train import checkpoints, sft

# Taught that she says one thing, she says the other ever less.
TAUGHT = [CHAT[1], {"role": "assistant", "content": "おかえり！🌸"}]
ASKED = [CHAT[1], {"role": "assistant", "content": "ふん、知らない"}]


@pytest.fixture(params=["lora", "full"])
def trainer_in(request, tiny, tokenizer):
    def make(folder):
        given = {
            "profile": "smoke",
            "max_steps": 20,
            "save_steps": 1,
            "patience": 2,
            "learning_rate": 5e-3 if request.param == "lora" else 3e-2,
        }
        cfg = settings.resolve("03_lora", given)
        cfg.hardware = dataclasses.replace(cfg.hardware, dtype=torch.float32)
        torch.manual_seed(0)
        lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        adapter = lora if request.param == "lora" else None
        model = sft.load_base(tiny, cfg, full=adapter is None)
        rows, watched = [supervise(tokenizer, TAUGHT)] * 4, [supervise(tokenizer, ASKED)]
        return sft.make_trainer(model, tokenizer, rows, watched, cfg, folder, adapter)

    return make


def _trained(trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def test_the_best_checkpoint_is_what_remains(trainer_in, tmp_path):
    trainer = trainer_in(tmp_path)
    steps = sft.run(trainer, "cpu")
    losses = {h["step"]: h["eval_loss"] for h in trainer.state.log_history if "eval_loss" in h}
    best = min(losses, key=losses.get)
    assert steps == best + 2 < 20, losses
    assert sft.validation_loss(trainer, "cpu") == pytest.approx(losses[best], abs=1e-5)
    file = tmp_path / f"checkpoint-{best}" / "adapter_model.safetensors"
    if file.exists():
        saved = load_file(file)
        for name, weight in _trained(trainer).items():
            torch.testing.assert_close(weight, saved[name.replace(".default", "")])

    again = trainer_in(tmp_path)
    assert sft.run(again, "cpu") == 0
    assert again.state.global_step == steps
    for name, weight in _trained(again).items():
        torch.testing.assert_close(weight, _trained(trainer)[name])


def test_a_run_that_was_cut_off_stops_where_it_would_have(trainer_in, tmp_path):
    whole = trainer_in(tmp_path / "whole")
    steps = sft.run(whole, "cpu")
    cut = trainer_in(tmp_path / "cut")
    cut.add_callback(_StopAfter(steps - 1))
    sft.run(cut, "cpu")
    last = checkpoints.last_checkpoint(tmp_path / "cut")
    assert int(last.name.split("-")[1]) == steps - 1 and not checkpoints.is_finished(last)
    shutil.rmtree(tmp_path / "whole")
    resumed = trainer_in(tmp_path / "cut")
    assert sft.run(resumed, "cpu") == 1
    for name, weight in _trained(resumed).items():
        torch.testing.assert_close(weight, _trained(whole)[name])


class _StopAfter(sft.TrainerCallback):
    def __init__(self, steps: int):
        self.steps = steps

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == self.steps:
            control.should_training_stop = True
