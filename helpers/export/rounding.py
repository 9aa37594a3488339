"""How far the rounding of its numbers alone may move a model's logits.

In: a model, and for some of its layers what rounding may make of their weights. Out: within a `with` block, the same
model with these weights. Two kinds bound what storing an adapted weight can do: an error up or down by chance, of the
largest size that rounding has; and, because what the adapter added may be smaller than that, the loss of as much of it
as rounding can take.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

Change = Callable[[torch.Tensor], torch.Tensor]


def unit_roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of rounding to the nearest number in `dtype` (Higham, *Accuracy and Stability of Numerical
    Algorithms*, 2nd ed., section 2.1): 2⁻⁸ for bfloat16, 2⁻²⁴ for float32."""
    return torch.finfo(dtype).eps / 2


def sum_error(terms: int, dtype: torch.dtype = torch.float32) -> float:
    """Largest relative error of a sum of products with so many terms, of each product's size (Higham, section 3.1)."""
    return terms * unit_roundoff(dtype)


def is_exact(weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether `dtype` holds every number of `weight`."""
    return bool((weight.to(dtype).to(weight.dtype) == weight).all())


def shaken(by: float, seed: int) -> Change:
    """w → w·(1 ± by), the sign drawn for each weight, the same at every call."""

    def change(weight: torch.Tensor) -> torch.Tensor:
        chance = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, weight.shape, generator=chance, dtype=torch.int8).mul_(2).sub_(1)
        return torch.addcmul(weight, weight, signs.to(weight), value=by)

    return change


def erased(before: torch.Tensor, by: float) -> Change:
    """w → w without what was added to `before`, as far as rounding may take it: by·|w| at most."""

    def change(weight: torch.Tensor) -> torch.Tensor:
        most = weight.abs() * by
        return weight - (weight - before).clamp(-most, most)

    return change


@contextmanager
def changed(model: nn.Module, layers: Mapping[str, Change]) -> Iterator[None]:
    """Within the block the named layers compute with changed weights. One layer's are in memory at a time, and
    afterwards the model is what it was, bit by bit."""
    hooks, whole = [], {}

    # Not in inference mode: a parameter cannot hold a tensor that was made in it.
    @torch.inference_mode(False)
    @torch.no_grad()
    def change(layer: nn.Module, name: str) -> None:
        whole[name] = layer.weight.data
        layer.weight.data = layers[name](whole[name])

    def restore(layer: nn.Module, name: str) -> None:
        layer.weight.data = whole.pop(name)

    try:
        for name, layer in model.named_modules():
            if name in layers:
                hooks.append(layer.register_forward_pre_hook(lambda m, _, name=name: change(m, name)))
                hooks.append(layer.register_forward_hook(lambda m, *_, name=name: restore(m, name), always_call=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()
