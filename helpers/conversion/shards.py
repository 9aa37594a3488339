"""Weights of a checkpoint folder, tensor by tensor.

In: a folder with safetensors or pytorch_model.bin files, or a stream of named tensors. Out: the stream, or safetensors
shards with their index. At most one input file (mapped, not read) and one output shard are in memory at a time.
"""

import json
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers.conversion.layouts import NotConvertible

SHARD_BYTES = 2 * 1024**3


def read_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the checkpoint by its name; no code that a pickle names is run.

    Raises:
        FileNotFoundError: there are no weights, or one of the files that the index names is missing.
        NotConvertible: a file is damaged or holds other things than tensors.
    """
    for file in _files(folder):
        if not file.exists():
            raise FileNotFoundError(f"{file} is missing, though the index names it: download it again.")
        try:
            yield from _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = " ".join(str(error).split())[:200]
            raise NotConvertible(f"{file} cannot be read as plain tensors ({reason}): download it again.") from error


def _files(folder: Path) -> list[Path]:
    for whole in ("model.safetensors", "pytorch_model.bin"):
        if (index := folder / f"{whole}.index.json").exists():
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / Path(name).name for name in sorted(set(names))]
        if (folder / whole).exists():
            return [folder / whole]
    raise FileNotFoundError(f"{folder} holds no weights: neither model.safetensors nor pytorch_model.bin, or an index.")


def _safetensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (it is no dict)
            yield name, tensors.get_tensor(name)


def _pickled(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise NotConvertible(f"{file} holds something else than tensors ({name}): take the published file.")
        yield name, tensor


def write_tensors(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]], shard_bytes: int = SHARD_BYTES) -> None:
    """Write `tensors` as safetensors shards of about `shard_bytes`, under the names that transformers looks for."""
    shards: list[list[str]] = []
    total = 0

    def write(batch: dict[str, torch.Tensor]) -> None:
        save_file(batch, folder / f"{len(shards)}.safetensors", {"format": "pt"})
        shards.append(list(batch))

    batch: dict[str, torch.Tensor] = {}
    held = 0
    for name, tensor in tensors:
        if batch and held + tensor.nbytes > shard_bytes:
            write(batch)
            batch, held = {}, 0
        batch[name] = tensor.clone(memory_format=torch.contiguous_format)
        held += tensor.nbytes
        total += tensor.nbytes
    write(batch)
    if len(shards) == 1:
        (folder / "0.safetensors").rename(folder / "model.safetensors")
        return
    weight_map = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"{number}.safetensors").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
