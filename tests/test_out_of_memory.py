"""Memory runs out: one sentence with what would fit, or smaller micro-batches that teach the same."""

import dataclasses

import pytest
import torch
from peft import LoraConfig
from talks import CHAT

from helpers import settings
from helpers.supervision import supervise
from helpers.train import budget, cells, out_of_memory, quantized, sft
from helpers.train.__main__ import main

ROWS = 4


@pytest.fixture
def trainer_in(tiny, tokenizer):
    def make(folder, holds: int, after: int = 0, repeated=(1, 2, 5, 9), **given):
        """A trainer of rows that are so many words long, on a device that holds `holds` rows at once from step `after`
        on."""
        cfg = settings.resolve("03_lora", {"profile": "smoke", "max_steps": 4, "patience": 0} | given)
        cfg.hardware = dataclasses.replace(cfg.hardware, dtype=torch.float32)
        torch.manual_seed(0)
        lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        rows = [supervise(tokenizer, [CHAT[1], {"role": "assistant", "content": "おかえり" * n}]) for n in repeated]
        trainer = sft.make_trainer(sft.load_base(tiny, cfg), tokenizer, rows, rows, cfg, folder, lora)

        def forward(model, args, kwargs):
            if len(kwargs["input_ids"]) > holds and trainer.state.global_step >= after:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        trainer.model.register_forward_pre_hook(forward, with_kwargs=True)
        return trainer

    return make


def _trained(trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("after", [0, 3])
def test_a_retry_in_smaller_micro_batches_teaches_the_same(trainer_in, tmp_path, after):
    whole = trainer_in(tmp_path / "whole", holds=ROWS)
    sft.run(whole, "cpu")
    smaller = trainer_in(tmp_path / "smaller", holds=1, after=after)
    assert sft.run(smaller, "cpu", retry=True) == 4
    assert (smaller.args.per_device_train_batch_size, smaller.args.gradient_accumulation_steps) == (1, 4)
    for name, weight in _trained(smaller).items():
        torch.testing.assert_close(weight, _trained(whole)[name], rtol=1e-5, atol=1e-6)


def test_a_retry_in_the_middle_of_an_epoch_meets_the_rows_that_were_left(trainer_in, tmp_path):
    """Grouped by length, 40 rows lie in another order for steps of 16 than for steps of 4."""
    given = {"repeated": [1 + 7 * n % 40 for n in range(40)], "max_steps": 8, "save_steps": 2}
    whole = trainer_in(tmp_path / "whole", holds=ROWS, **given)
    sft.run(whole, "cpu")
    smaller = trainer_in(tmp_path / "smaller", holds=1, after=5, **given)
    assert sft.run(smaller, "cpu", retry=True) == 8 and smaller.state.epoch < 1
    assert smaller.args.gradient_accumulation_steps == 4
    for name, weight in _trained(smaller).items():
        torch.testing.assert_close(weight, _trained(whole)[name], rtol=1e-5, atol=1e-6)


def test_without_a_retry_one_sentence_says_what_would_fit(trainer_in, tmp_path, monkeypatch):
    trainer = trainer_in(tmp_path, holds=1)
    needed = out_of_memory.predict(out_of_memory.plan_of(trainer, "cpu")).gib
    monkeypatch.setattr(out_of_memory, "memory_at_hand", lambda device: needed - 1e-4)
    with pytest.raises(out_of_memory.OutOfMemory) as stopped:
        sft.run(trainer, "cpu")
    assert isinstance(stopped.value.__cause__, torch.OutOfMemoryError)
    sentence = str(stopped.value)
    assert sentence.startswith("Out of memory at step 0: method lora with batch_size=4, gradient_accumulation=1, ")
    before, fitting = sentence.split("These would fit: ")
    assert f"{needed:.1f} GiB is the budget" in before
    assert "batch_size=2, gradient_accumulation=2, max_length=1024" in fitting


def test_packed_rows_of_a_micro_batch_are_budgeted_as_the_one_sequence_that_they_are(trainer_in, tmp_path):
    trainer = trainer_in(tmp_path, holds=ROWS, packing=True, max_length=64, batch_size=2, repeated=(9,) * ROWS)
    batch = trainer.data_collator([trainer.train_dataset[n] for n in range(2)])
    cfg = settings.resolve("03_lora", {"profile": "smoke", "packing": True, "max_length": 64, "batch_size": 2})
    asked = out_of_memory.plan_of(trainer, "cpu")
    for plan in (asked, budget.plan_for(cfg, asked.shape, asked.targets, "lora")):
        step = budget._step(plan)
        assert (step.sequences, step.tokens) == (len(batch["input_ids"]), 2 * 64)
    assert not out_of_memory.plan_of(trainer_in(tmp_path, holds=ROWS), "cpu").packing


def _burst(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_the_validation_loss_is_in_that_sentence_too(trainer_in, tmp_path):
    said = "^Out of memory in the validation loss: method lora .* would fit"
    with pytest.raises(out_of_memory.OutOfMemory, match=said):
        sft.validation_loss(trainer_in(tmp_path, holds=0), "cpu")


@pytest.mark.parametrize(("bits", "held"), [(None, "as float32"), ("nf4", "in 4 bits"), ("int8", "in 8 bits")])
def test_a_base_that_cannot_be_loaded_is_one_sentence(tiny, monkeypatch, bits, held):
    cfg = settings.resolve("04_qlora", {"profile": "smoke"})
    cfg.hardware = dataclasses.replace(cfg.hardware, dtype=torch.float32)
    quantization = quantized.QUANTIZATIONS[bits](cfg.hardware) if bits else None
    monkeypatch.setattr(sft.AutoModelForCausalLM, "from_pretrained", _burst)
    said = rf"^Out of memory while tiny was loaded {held}: its weights take 0\.\d GiB, and there are .*smaller base"
    with pytest.raises(out_of_memory.OutOfMemory, match=said) as stopped:
        sft.load_base(tiny, cfg, quantization)
    assert ("fewer bits" in str(stopped.value)) == (bits != "nf4")


def test_a_stage_outside_its_notebook_says_one_sentence_wherever_memory_runs_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    monkeypatch.setattr(cells, "run", _burst)
    assert main(["3", "--profile", "smoke"]) == 1
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("Out of memory in 03_lora (there are ") and "lower batch_size" in sentence


def test_what_other_programs_hold_of_a_gpu_is_not_at_hand(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 6 * 2**30)
    assert out_of_memory.memory_at_hand("cuda") == 16


def test_a_single_row_that_does_not_fit_ends_a_retry_too(trainer_in, tmp_path):
    with pytest.raises(out_of_memory.OutOfMemory, match="batch_size=1, gradient_accumulation=4"):
        sft.run(trainer_in(tmp_path, holds=0), "cpu", retry=True)
