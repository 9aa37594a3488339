"""A small reader of Japanese: the encoder with LoRA layers and a head of its own, taught on some thousand sentences.

In: a model that holds the encoder as `encoder`, and its loss on a batch. Out: the model, taught; its trained weights in
one small file, and read from there. What the readers of names and of crises share.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import BertModel, get_cosine_schedule_with_warmup

from helpers.files import whole_file
from helpers.quiet import hide_gptqmodel

_log = logging.getLogger(__name__)
_Batch = TypeVar("_Batch")


def adapted(encoder: BertModel, rank: int = 16) -> PeftModel:
    """`encoder` with the LoRA layers that are taught."""
    hide_gptqmodel()
    targets = ["query", "key", "value", "dense"]
    return get_peft_model(encoder, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=targets))


def padded(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    """`rows` (texts × places), filled up with `value` behind."""
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def teach(
    model: nn.Module,
    batches: Callable[[], Iterable[_Batch]],
    steps: int,
    loss_of: Callable[[_Batch], torch.Tensor],
    epochs: int,
    learning_rate: float,
) -> None:
    """AdamW with a cosine schedule. `batches` is asked anew for every epoch and gives `steps` of them."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, learning_rate, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, epochs * steps // 20, epochs * steps)
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for batch in batches():
            loss = loss_of(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.item()
        _log.info("epoch %d of %d: loss %.4f", epoch + 1, epochs, total / steps)


def save_trained(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """What was taught alone, in float16, whole or not at all."""
    state = {n: p.detach().half().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    with whole_file(path) as unfinished:
        save_file(state, unfinished, metadata=metadata)
        unfinished.chmod(0o644)


def load_trained(model: nn.Module, path: Path, command: str) -> dict[str, str]:
    """Put what was taught into `model`, merge the LoRA layers, and return the metadata; `command` writes the file.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it belongs to another model.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: it is part of the repository; check it out again.")
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = dict(file.metadata() or {})
    if state.keys() != {name for name, p in model.named_parameters() if p.requires_grad}:
        raise ValueError(f"{path} belongs to another model: write it anew by `{command}`.")
    model.load_state_dict(state, strict=False)
    model.encoder = model.encoder.merge_and_unload()
    model.eval()
    return metadata
