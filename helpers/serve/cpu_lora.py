"""Adapters of a vLLM server on a CPU: the tokens of each adapter in one product, and those of the base left alone.

vLLM 0.32's own way on a CPU (`vllm/lora/ops/torch_ops`) copies the adapter's matrices once for every token, which takes
longer than the model itself; and a request to the base that runs beside one to an adapter gets the adapter in the last
slot, because its tokens have the index -1. `vllm_process` puts ours in the place of vLLM's.
"""

from collections.abc import Sequence

import torch
from vllm.lora.punica_wrapper import punica_cpu


class GroupedLoRA(punica_cpu.PunicaWrapperCPU):
    """As vLLM's own, for layers whose adapters are not split among processes (vLLM's `--fully-sharded-loras` is)."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.groups: list[tuple[int, torch.Tensor | None]] = []

    def update_metadata(self, *args, **kwargs) -> None:
        super().update_metadata(*args, **kwargs)
        self.groups = grouped(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Sequence[torch.Tensor],
        lora_b_stacked: Sequence[torch.Tensor],
        scale: float,
        output_slices: Sequence[int],
        **_,
    ) -> None:
        """Add to `y` (tokens × all outputs) what the adapters make of `x` (tokens × inputs). Of each slice of the
        outputs, as wide as `output_slices` says, the matrices are slots × 1 × rank × inputs and slots × 1 × outputs ×
        rank."""
        for slot, rows in self.groups:
            mine = x if rows is None else x[rows]
            added = [
                _product(_product(mine, a[slot, 0]), b[slot, 0])
                for a, b in zip(lora_a_stacked, lora_b_stacked, strict=True)
            ]
            product = (scale * torch.cat(added, dim=1)).to(y.dtype)
            y.add_(product) if rows is None else y.index_add_(0, rows, product)


def grouped(slots: torch.Tensor) -> list[tuple[int, torch.Tensor | None]]:
    """(slot, its rows) for each slot of an adapter in `slots`, one number a token; -1 is the base, which has none. No
    rows: all are the slot's."""
    found = [int(slot) for slot in slots.unique() if slot >= 0]
    if len(found) == 1 and bool((slots == found[0]).all()):
        return [(found[0], None)]
    return [(slot, (slots == slot).nonzero()[:, 0]) for slot in found]


def _product(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """In float32, as vLLM's kernels on a GPU have it between the two matrices."""
    return x.float() @ weights.float().T
