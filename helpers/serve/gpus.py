"""Which GPUs a server takes, and how much of their memory.

In: a model's folder and how many GPUs it is to have. Out: `Gpus`. vLLM by itself takes the first ones and nine tenths
of each, and ends where so much is not free: a notebook that holds a model, a training or another server is enough.
"""

import gc
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

GIB = 2**30
SPARED = GIB  # bytes of what is free that are left free, for CUDA itself; twice that where GPUs talk to each other
_ASK = """import json, torch
print(json.dumps([torch.cuda.mem_get_info(gpu) for gpu in range(torch.cuda.device_count())]))"""
INDEX = "model.safetensors.index.json"


class NoRoom(RuntimeError):
    """The weights alone do not fit into what is free."""


@dataclass(frozen=True)
class Gpus:
    """`visible` is for CUDA_VISIBLE_DEVICES; `share` is that of each one's memory, 0 to 1."""

    visible: str
    share: float


def choose(model: Path, tensor_parallel: int, data_parallel: int, most: float) -> Gpus:
    """The GPUs with the most free memory, the last ones first, since training takes the first; and of each what is
    free, at most the share `most`. What this process holds and does not use any more is given back before.

    Raises:
        NoRoom: one sentence.
    """
    gc.collect()
    torch.cuda.empty_cache()
    found = memory()
    freest = sorted(range(len(found)), key=lambda gpu: (found[gpu], gpu), reverse=True)
    taken = sorted(freest[: tensor_parallel * data_parallel])
    free, total = min(found[gpu] for gpu in taken)
    share = min(most, (free - SPARED * (2 if tensor_parallel > 1 else 1)) / total)
    weights = weights_bytes(model) / tensor_parallel
    if share * total <= weights:
        raise NoRoom(
            f"{model.name} takes {weights / GIB:.1f} GiB of a GPU for its weights alone, and {free / GIB:.1f} of "
            f"{total / GIB:.1f} GiB are free, of which the server may take {max(share, 0):.0%} of the whole: end what "
            "else holds them (`nvidia-smi` lists it), serve fewer bits, or share the weights by tensor_parallel."
        )
    names = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(len(found))))).split(",")
    return Gpus(",".join(names[gpu] for gpu in taken), math.floor(100 * share) / 100)


def memory() -> list[tuple[int, int]]:
    """Free and total bytes of each GPU that this process sees. Another asks: whoever does keeps half a GiB of each."""
    asked = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    return [tuple(each) for each in json.loads(asked.stdout)]


def weights_bytes(model: Path) -> int:
    """Of a folder in transformers' layout; what its index does not name (Mistral's own second copy) is not loaded."""
    if (index := model / INDEX).exists():
        return int(json.loads(index.read_text(encoding="utf-8"))["metadata"]["total_size"])
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))
