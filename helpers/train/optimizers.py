"""Which AdamW trains, and in how few bytes: one choice that says why.

In: what is trained, and on what. Out: arguments of transformers' Trainer.
"""

import torch
from transformers import PreTrainedModel

from helpers.settings import Hardware
from helpers.train import ranks

OPTIMIZERS: dict[str, dict[str, str]] = {
    "adamw": {"optim": "adamw_torch"},
    "paged_8bit": {"optim": "paged_adamw_8bit"},
    "stochastic_8bit": {"optim": "adamw_torch_8bit", "optim_args": "bf16_stochastic_round=True"},
}


class UnfitOptimizer(ValueError):
    """The optimizer cannot train these weights here."""


def choose_optimizer(name: str, hardware: Hardware, model: PreTrainedModel, full: bool) -> tuple[str, str]:
    """(a key of `OPTIMIZERS`, reason). "auto" takes plain AdamW wherever it learns and fits.

    Weights that are themselves bfloat16 (`full`) lose updates below 2^-9 of their size to rounding; torchao's 8-bit
    AdamW rounds at random instead, right on average (Gupta et al., 2015, arXiv:1502.02551); sharded ones accelerate
    makes float32. On a quantized base the state is small, but may be paged out to the host's memory when the card is
    full (Dettmers et al., 2023).

    Raises:
        UnfitOptimizer: updates would vanish, or the device has no such optimizer.
    """
    rounded = full and model.dtype == torch.bfloat16 and not ranks.sharded()
    if name == "auto":
        if rounded:
            return "stochastic_8bit", "all weights are trained in bfloat16: stochastic rounding keeps small updates"
        if getattr(model, "is_quantized", False) and hardware.device == "cuda":
            return "paged_8bit", "the base is quantized to save memory: 8-bit state, paged out when the card is full"
        return "adamw", "the trained weights are few, or float32"
    if rounded and name != "stochastic_8bit":
        raise UnfitOptimizer(
            f"optimizer={name!r} would lose most updates of bfloat16 weights to rounding: use 'stochastic_8bit', or "
            "'auto', or method='lora'."
        )
    if name == "paged_8bit" and hardware.device != "cuda":
        raise UnfitOptimizer("optimizer='paged_8bit' pages between a GPU and its host: on a CPU use 'auto' or 'adamw'.")
    if name == "stochastic_8bit" and not rounded:
        raise UnfitOptimizer("optimizer='stochastic_8bit' is for method='full' in bfloat16: use 'auto' or 'adamw'.")
    return name, "as asked"
