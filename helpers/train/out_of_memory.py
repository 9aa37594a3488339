"""When memory does not do: the same step in smaller bites, or one sentence with what would fit.

In: a TRL trainer that ran out, or a block that may. Out: half the trainer's micro-batch and twice the accumulation, so
that each step sees the same rows; or `OutOfMemory`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from transformers import BitsAndBytesConfig
from trl import DPOTrainer

from helpers.base_model import BaseModel
from helpers.train.budget import Budget, Plan, memory_at_hand, predict, settings_that_fit, weights_gib
from helpers.train.shapes import shape_of


class OutOfMemory(RuntimeError):
    """The run does not fit: one sentence with its budget and the settings that would."""


@contextmanager
def in_one_sentence(sentence: Callable[[], str]) -> Iterator[None]:
    """PyTorch's error about memory in the block becomes `OutOfMemory` with this sentence."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(sentence()) from error


def halve_micro_batch(trainer) -> bool:
    """Half the rows a micro-batch, twice the micro-batches a step. False if they cannot be halved."""
    rows = trainer.args.per_device_train_batch_size
    if rows % 2:
        return False
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = rows // 2
    trainer.args.per_device_eval_batch_size = max(1, min(trainer.args.per_device_eval_batch_size, rows // 2))
    trainer.args.gradient_accumulation_steps *= 2
    trainer.optimizer = trainer.lr_scheduler = None  # they belong to the run that was given up
    trainer.model.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the trained weights in main memory."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def put_back(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Undo `model`'s training: `weights` are what `trained_weights` copied."""
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.copy_(weights[name])


def explain(trainer, device: str, doing: str | None = None) -> str:
    """What the run needs, what there is, and up to three settings that would fit. `doing`: in what, if not in a step,
    it ran out."""
    budget, there = predict(plan_of(trainer, device)), memory_at_hand(device)
    largest = sorted(budget.parts, key=budget.parts.get, reverse=True)[:3]
    parts = ", ".join(f"{part} {budget.parts[part] / 2**30:.1f}" for part in largest)
    fitting = "; ".join(map(_in_words, settings_that_fit(budget.plan, there))) or "none: take a smaller base model"
    return (
        f"Out of memory {doing or f'at step {trainer.state.global_step}'}: {_in_words(budget)} is the budget ({parts}, "
        f"…), and there are {there:.1f} GiB. These would fit: {fitting}."
    )


def explain_loading(base: BaseModel, dtype: torch.dtype, device: str, quantization: BitsAndBytesConfig | None) -> str:
    """What the base's weights take, what there is, and what would help."""
    method = _method_on(quantization)
    weights = weights_gib(Plan(shape_of(base.path), (), method, device=device, dtype=dtype))
    held = {"qlora": "in 4 bits", "int8": "in 8 bits"}.get(method, f"as {str(dtype).removeprefix('torch.')}")
    fewer = "" if method == "qlora" else ", hold it in fewer bits (04_qlora)"
    return (
        f"Out of memory while {base.name} was loaded {held}: its weights take {weights:.1f} GiB, and there are "
        f"{memory_at_hand(device):.1f} GiB: take a smaller base model{fewer}, or free what other programs hold."
    )


def explain_one_row(doing: str, device: str) -> str:
    """What there is, where a single row at a time is already too much."""
    return (
        f"Out of memory {doing}, one row at a time (there are {memory_at_hand(device):.1f} GiB): lower max_length, "
        "take a smaller base model, or free what other programs hold."
    )


def plan_of(trainer, device: str) -> Plan:
    """The plan that the budget needs, from the trainer itself."""
    model, args = trainer.model, trainer.args
    adapter = model.peft_config["default"] if isinstance(model, PeftModel) else None
    return Plan(
        shape=shape_of(Path(model.name_or_path)),
        targets=tuple(adapter.target_modules) if adapter else (),
        method=_method(trainer),
        context=args.max_length,
        micro_batch=args.per_device_train_batch_size,
        accumulation=args.gradient_accumulation_steps,
        checkpointing=args.gradient_checkpointing,
        device=device,
        dtype=model.dtype,
        attention=model.config._attn_implementation,
        lora_r=adapter.r if adapter else 0,
        lora_dropout=adapter.lora_dropout if adapter else 0.0,
        dora=bool(adapter and adapter.use_dora),
        packing=getattr(args, "packing", False),
    )


def _method(trainer) -> str:
    if isinstance(trainer, DPOTrainer):
        return "dpo"
    if not isinstance(trainer.model, PeftModel):
        return "full"
    return _method_on(getattr(trainer.model.config, "quantization_config", None))


def _method_on(quantization: BitsAndBytesConfig | None) -> str:
    return "lora" if quantization is None else "qlora" if quantization.load_in_4bit else "int8"


def _in_words(budget: Budget) -> str:
    plan = budget.plan
    return (
        f"method {plan.method} with batch_size={plan.micro_batch}, gradient_accumulation={plan.accumulation}, "
        f"max_length={plan.context}: {budget.gib:.1f} GiB"
    )
