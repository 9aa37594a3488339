"""Random weights of a given shape, made on the device, one tensor at a time.

In: a shape. Out: `sft.load_base`, and what is built on it, load such a model where they would read one from a folder:
by transformers' own loading, in the dtype, on the device and in the bits that they ask for.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from transformers import Qwen2ForCausalLM

from helpers.train import sft
from helpers.train.shapes import Shape, published_shape


@dataclass(frozen=True)
class Size:
    """A shape, and the number of tokens of a row."""

    shape: Shape
    context: int


TRUE = Size(published_shape("Qwen/Qwen2.5-7B-Instruct"), context=2048)
_TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
}
REHEARSAL = Size(Shape("rehearsal", json.dumps(json.loads(TRUE.shape.config) | _TINY)), context=384)


@dataclass(frozen=True)
class RandomTensor:
    """Stands in a state dict for a tensor that is made when transformers slices it, as it does those of a file: norms
    are 1, biases 0, matrices N(0, 0.02²)."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    device: str

    def __getitem__(self, _) -> torch.Tensor:
        made = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        if len(self.shape) == 1:
            return made.fill_(0.0 if self.name.endswith("bias") else 1.0)
        seed = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4])
        return made.normal_(0.0, 0.02, generator=torch.Generator(self.device).manual_seed(seed))


@contextmanager
def made_up(shape: Shape) -> Iterator[None]:
    """While active, `sft.load_base` gives a Qwen2 model of `shape` whatever base it is asked for, and writes the
    configuration alone into the base's folder."""
    parameters = {name: p.shape for name, p in shape.on_meta().named_parameters()}

    def from_pretrained(folder: Path, **given) -> Qwen2ForCausalLM:
        shape.configuration().save_pretrained(folder)
        weights = {n: RandomTensor(n, size, given["dtype"], given["device_map"]) for n, size in parameters.items()}
        model = Qwen2ForCausalLM.from_pretrained(None, config=shape.configuration(), state_dict=weights, **given)
        model.name_or_path = model.config.name_or_path = str(folder)
        return model

    with mock.patch.object(sft, "AutoModelForCausalLM", mock.Mock(from_pretrained=from_pretrained)):
        yield
