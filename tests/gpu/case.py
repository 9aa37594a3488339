"""One case in a process of its own: a few steps of one method at one micro-batch, by the house's own trainers.

`python case.py METHOD MICRO_BATCH ANSWER [--rehearse]` writes what it measured to ANSWER, as JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from unittest import mock

import torch
from peft import LoraConfig, get_peft_model
from rows import random_pairs, random_rows, tokens_of
from small import small_tokenizer
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback
from transformers.trainer_utils import SaveStrategy
from weights import REHEARSAL, TRUE, Size, made_up

from helpers import settings
from helpers.base_model import BaseModel
from helpers.families import detect_family, prepare_tokenizer
from helpers.files import write_atomically
from helpers.persona import PersonaCard, load_persona
from helpers.quiet import hide_gptqmodel
from helpers.settings import Settings
from helpers.supervision import Row
from helpers.train import budget, dpo, quantized, sft
from helpers.train.out_of_memory import OutOfMemory
from helpers.train.preferences import PreferencePair
from helpers.train.shapes import count

GIB = 2**30
STEPS, UNCOUNTED = 6, 2  # in the first ones kernels are compiled and memory is laid out
STAGES = {"lora": "03_lora", "qlora": "04_qlora", "full": "03_lora", "dpo": "05_dpo"}
# For each weight and token, a multiplication and an addition at a time: forward, backward through the weight, and where
# it is itself trained once more for its gradient.
OPERATIONS = {"lora": 4, "qlora": 4, "full": 6, "dpo": 4}
RECOMPUTED = 2  # for each weight and token that goes forward once more


class Clock(TrainerCallback):
    """When each step ended, all work of the device done."""

    def __init__(self, device: str):
        self._device, self.ends = device, []

    def on_step_end(self, args, state, control, **kwargs):
        if self._device == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def settings_of(method: str, micro_batch: int, size: Size) -> Settings:
    """The stage's settings at the profile `gpu`, for `STEPS` steps of one micro-batch."""
    given = {"profile": "gpu", "run_name": "gpu-check", "max_steps": STEPS, "save_steps": STEPS, "patience": 0}
    given |= {"batch_size": micro_batch, "gradient_accumulation": 1, "max_length": size.context}
    if method == "full":
        given |= {"method": "full"}
    return settings.resolve(STAGES[method], given)


def lora(tokenizer: PreTrainedTokenizerBase) -> LoraConfig:
    """As the notebooks make it at the profile `gpu`."""
    cfg = settings.resolve("03_lora", {"profile": "gpu"})
    return LoraConfig(
        r=cfg.lora_r,
        lora_alpha=cfg.lora_alpha,
        lora_dropout=cfg.lora_dropout,
        target_modules=detect_family(tokenizer).lora_targets,
        task_type="CAUSAL_LM",
    )


@dataclass(frozen=True)
class Work:
    """What a step is made of: `examples` for all steps, rows or for DPO pairs; tokens of a step, and those of them with
    a loss."""

    examples: list[Row] | list[PreferencePair]
    tokens: int
    learned: int


def work_of(method: str, cfg: Settings, size: Size, tokenizer: PreTrainedTokenizerBase, card: PersonaCard) -> Work:
    """Examples of exactly `size.context` tokens; of a pair both replies are counted."""
    if method == "dpo":
        pairs = random_pairs(tokenizer, card, 2 * cfg.batch_size, size.context)
        return Work(pairs, *(2 * cfg.batch_size * n for n in tokens_of(tokenizer, pairs[0], card)))
    vocabulary = size.shape.configuration().vocab_size
    rows = random_rows(tokenizer, STEPS * cfg.batch_size, size.context, vocabulary)
    return Work(rows, cfg.batch_size * size.context, cfg.batch_size * len(rows[0].supervised))


def trainer_of(
    method: str,
    cfg: Settings,
    size: Size,
    tokenizer: PreTrainedTokenizerBase,
    card: PersonaCard,
    work: Work,
    folder: Path,
) -> Trainer:
    """The house's trainer for the examples of `work`, on random weights."""
    base, examples, run = BaseModel("random", folder, "", ""), work.examples, folder / "run"
    hide_gptqmodel()
    with made_up(size.shape):
        if method == "dpo":
            get_peft_model(sft.load_base(base, cfg), lora(tokenizer)).save_pretrained(folder / "adapter")
            policy = dpo.load_policy(base, folder / "adapter", cfg)
            # It names what is kept of the reference, and here nothing is: 16 GB would be hashed for it.
            with mock.patch("helpers.train.reference.weights_sha256", return_value="random"):
                return dpo.make_trainer(policy, tokenizer, examples, examples[:1], card, cfg, run)
        bits = quantized.QUANTIZATIONS[cfg.quantization](cfg.hardware) if method == "qlora" else None
        model = sft.load_base(base, cfg, bits, full=method == "full")
    if bits:
        assert len(quantized.packed_layers(model)) == 7 * size.shape.layers, "every linear layer is to be packed"
    adapter = None if method == "full" else lora(tokenizer)
    return sft.make_trainer(model, tokenizer, examples, examples[:1], cfg, run, adapter)


def train(method: str, micro_batch: int, size: Size, folder: Path) -> dict[str, object]:
    """Figures of one case; "skipped" if by its budget it does not fit."""
    cfg, tokenizer = settings_of(method, micro_batch, size), prepare_tokenizer(small_tokenizer())
    card, device = load_persona(cfg.persona), cfg.hardware.device
    work = work_of(method, cfg, size, tokenizer, card)
    targets = detect_family(tokenizer).lora_targets
    given = {"lora_r": lora(tokenizer).r, "lora_dropout": lora(tokenizer).lora_dropout}
    plan = budget.plan_for(cfg, size.shape, targets, method, learned=work.learned / work.tokens, **given)
    predicted, there = budget.predict(plan), budget.memory_at_hand(device)
    figures = {"predicted_gib": predicted.own_gib, "predicted_with_overhead_gib": predicted.gib}
    if not predicted.fits(there):
        why = f"the budget is {predicted.gib:.1f} GiB, and there are {there:.1f}"
        return {"status": "skipped", "why": why} | figures
    try:
        trainer = trainer_of(method, cfg, size, tokenizer, card, work, folder)
        return {"status": "measured"} | figures | measure(trainer, OPERATIONS[method], work, size, device)
    except (torch.OutOfMemoryError, OutOfMemory) as error:
        return {"status": "out of memory", "why": str(error).splitlines()[0].rstrip(".")} | figures


def measure(trainer: Trainer, operations: int, work: Work, size: Size, device: str) -> dict[str, object]:
    """Train, and time it."""
    trainer.args.save_strategy = SaveStrategy.NO
    clock = Clock(device)
    trainer.add_callback(clock)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    assert sft.run(trainer, device) == STEPS
    logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    seconds = statistics.median(after - before for before, after in pairwise(clock.ends[UNCOUNTED - 1 :]))
    weights = count(size.shape)  # words are looked up, not multiplied; the head multiplies what has a loss
    work_of_model = operations * (weights.in_layers * work.tokens + weights.head * work.learned)
    again = recomputed(operations, size, work) if trainer.args.gradient_checkpointing else 0
    return {
        "optimizer": str(trainer.args.optim.value),
        "tokens_a_step": work.tokens,
        "learned_tokens_a_step": work.learned,
        "seconds_a_step": seconds,
        "tokens_a_second": work.tokens / seconds,
        "model_tflops": work_of_model / seconds / 1e12,
        "tflops_with_recomputation": (work_of_model + again) / seconds / 1e12,
        "losses": [float(entry["loss"]) for entry in logged],
        "gradient_norms": [float(entry["grad_norm"]) for entry in logged],
    } | memory(trainer, device)


def recomputed(operations: int, size: Size, work: Work) -> int:
    """Operations done once more for the backward pass of a step: the layers, of which PyTorch leaves out what stands
    behind the last tensor that it keeps (the product of `down_proj`, where no adapter follows it), and in TRL's chunked
    loss the head."""
    shape, weights = size.shape.configuration(), count(size.shape)
    last = weights.layers * shape.intermediate_size * shape.hidden_size if operations == OPERATIONS["full"] else 0
    return RECOMPUTED * ((weights.in_layers - last) * work.tokens + weights.head * work.learned)


def memory(trainer, device: str) -> dict[str, float]:
    """GiB at the peak since the first step began: what tensors took, and what PyTorch's allocator held for them. State
    that bitsandbytes pages is outside of the allocator and is given apart. {} on a CPU."""
    if device != "cuda":
        return {}
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    paged = sum(value.nbytes for value in states if getattr(value, "is_paged", False))
    return {
        "peak_gib": torch.cuda.max_memory_allocated() / GIB,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB,
        "paged_gib": paged / GIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=STAGES)
    parser.add_argument("micro_batch", type=int)
    parser.add_argument("answer", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    asked = parser.parse_args()
    size = REHEARSAL if asked.rehearse else TRUE
    with tempfile.TemporaryDirectory() as folder:
        answer = train(asked.method, asked.micro_batch, size, Path(folder))
    write_atomically(asked.answer, json.dumps(answer))


if __name__ == "__main__":
    main()
