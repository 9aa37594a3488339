"""Adapters of a vLLM server on a CPU: the tokens of each adapter in one product, and those of the base left alone.

vLLM 0.32's own way on a CPU (`vllm/lora/ops/torch_ops`) copies the adapter's matrices once for every token, which takes
longer than the model itself; and a request to the base that runs beside one to an adapter gets the adapter in the last
slot, because its tokens have the index -1. `vllm_process` puts ours in the place of vLLM's.
"""

import torch
from vllm.lora.punica_wrapper import punica_cpu

Rows = slice | torch.Tensor


class GroupedLoRA(punica_cpu.PunicaWrapperCPU):
    """As vLLM's own; `x` and `y` are tokens × numbers, `w_t_all` slots × 1 × out × in."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.groups: list[tuple[int, Rows]] = []

    def update_metadata(self, *args, **kwargs) -> None:
        super().update_metadata(*args, **kwargs)
        self.groups = grouped(self.token_lora_indices)

    def _apply_shrink(self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float) -> None:
        for slot, rows in self.groups:
            y[rows] = scale * _product(x[rows], w_t_all[slot], y.dtype)

    def _apply_expand(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        w_t_all: torch.Tensor,
        y_offset: int,
        y_slice_size: int,
        add_inputs: bool = True,
    ) -> None:
        columns = slice(y_offset, y_offset + y_slice_size)
        for slot, rows in self.groups:
            product = _product(x[rows], w_t_all[slot], y.dtype)
            y[rows, columns] = y[rows, columns] + product if add_inputs else product


def grouped(slots: torch.Tensor) -> list[tuple[int, Rows]]:
    """(slot, its rows) for each slot of an adapter in `slots`, one number a token; -1 is the base, which has none."""
    found = [int(slot) for slot in slots.unique() if slot >= 0]
    if len(found) == 1 and bool((slots == found[0]).all()):
        return [(found[0], slice(None))]
    return [(slot, (slots == slot).nonzero()[:, 0]) for slot in found]


def _product(x: torch.Tensor, weights: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.to(dtype) @ weights[0].to(dtype).T
