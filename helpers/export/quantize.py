"""4-bit checkpoints for serving: GPTQ by gptqmodel, the AWQ format by auto-round.

In: a model folder in 16 or 32 bits and calibration rows. Out: a folder with 4-bit linear layers that vLLM serves, with
tokenizer, chat template and stop tokens. Each runs as `python -m helpers.export.quantize` in a process of its own: both
libraries patch transformers when imported.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from helpers.export import worker
from helpers.export.serving_files import weight_bytes, write_serving_files
from helpers.files import whole_folder
from helpers.supervision import Row

GROUP_SIZES = (128, 64, 32)


@dataclass(frozen=True)
class Quantized:
    """`bytes` of weights on disk, `seconds` of the process, weights that share a scale: `group_size`."""

    scheme: str
    folder: Path
    bytes: int
    seconds: float
    group_size: int


def gptq(model: Path, target: Path, rows: Sequence[Row], log: Path) -> Quantized:
    """4 bits by GPTQ (Frantar et al., 2022, arXiv:2210.17323): weights not yet rounded make up for those that are.

    Args:
        rows: calibration, as token ids: texts would get a second BOS.
        log: file for the library's own output.

    Raises:
        ValueError: no group size divides the model's layers.
        worker.WorkerError: the library failed; the message holds the end of `log`.
    """
    return _quantize("gptq", model, target, rows, log)


def awq(model: Path, target: Path, rows: Sequence[Row], log: Path) -> Quantized:
    """4 bits in AWQ's file format (Lin et al., 2023, arXiv:2306.00978), rounded by auto-round with `iters=0`.

    The rounding minimizes the error weighted by the activations of the calibration rows; it is not AWQ's own search for
    channel scales, which takes several times as long. Arguments and errors as for `gptq`. Calibration rows are cut to
    one length, which auto-round demands; shorter ones are left out.
    """
    return _quantize("awq", model, target, rows, log)


SCHEMES = {"gptq": gptq, "awq": awq}


def check_schemes(names: Sequence[str]) -> None:
    """Raises ValueError for the first name that is no scheme."""
    for name in names:
        if name not in SCHEMES:
            raise ValueError(f"There is no quantization scheme {name!r}: use {' or '.join(SCHEMES)}.")


def _quantize(scheme: str, model: Path, target: Path, rows: Sequence[Row], log: Path) -> Quantized:
    began, size = time.monotonic(), group_size(model)
    job = {
        "scheme": scheme,
        "model": str(model.resolve()),
        "target": str(target.resolve()),
        "rows": worker.pack_rows(rows),
        "group_size": size,
    }
    # On two cores gptqmodel sizes its worker pool to one and then refuses it.
    environment = {"GPTQMODEL_CPU_WORKERS": str(max(2, (os.cpu_count() or 2) // 2))}
    worker.run("helpers.export.quantize", job, log, f"{scheme} {model.name}", environment)
    return Quantized(scheme, target, weight_bytes(target), round(time.monotonic() - began, 1), size)


def group_size(model: Path) -> int:
    """The largest of `GROUP_SIZES` that divides the input size of every linear layer in the model's blocks.

    Raises:
        ValueError: none does.
    """
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    inputs = {m.in_features for m in skeleton.get_decoder().modules() if isinstance(m, torch.nn.Linear)}
    for size in GROUP_SIZES:
        if all(width % size == 0 for width in inputs):
            return size
    raise ValueError(f"No group size of {GROUP_SIZES} divides the layers of {model.name} ({sorted(inputs)}).")


def _run(job: dict) -> dict:
    model, target = Path(job["model"]), Path(job["target"])
    rows = worker.unpack_rows(job["rows"])
    work = {"gptq": _gptqmodel, "awq": _auto_round}[job["scheme"]]
    with whole_folder(target) as part, tempfile.TemporaryDirectory(dir=target.parent) as raw:
        made = work(model, Path(raw), [row.input_ids for row in rows], job["group_size"])
        for weights in made.glob("*.safetensors*"):
            _move(weights, part / weights.name, AutoConfig.from_pretrained(model).dtype)
        _write_config(model, made, part)
        write_serving_files(model, part)
    return {}


def _move(weights: Path, target: Path, dtype: torch.dtype) -> None:
    """Move a file of weights; what was not quantized in it and is float32, as auto-round computes on a CPU without
    bfloat16, gets the model's own dtype back."""
    tensors = load_file(weights) if weights.suffix == ".safetensors" else {}
    if any(t.dtype == torch.float32 for t in tensors.values()):
        own = {name: t.to(dtype) if t.dtype == torch.float32 else t for name, t in tensors.items()}
        save_file(own, target, metadata={"format": "pt"})
    else:
        shutil.move(weights, target)


def _write_config(model: Path, made: Path, part: Path) -> None:
    """The model's own config.json with the quantization added: the libraries rewrite more of it than they need to."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    quantization = json.loads((made / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    quantization.get("meta", {}).pop("offload_to_disk_path", None)
    (part / "config.json").write_text(
        json.dumps(config | {"quantization_config": quantization}, indent=2), encoding="utf-8"
    )


def _gptqmodel(model: Path, folder: Path, ids: list[list[int]], size: int) -> Path:
    from gptqmodel import GPTQModel, QuantizeConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = GPTQModel.load(str(model), QuantizeConfig(bits=4, group_size=size), device=device)
    loaded.quantize([{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids], batch_size=1)
    loaded.save(str(folder))
    return folder


def _auto_round(model: Path, folder: Path, ids: list[list[int]], size: int) -> Path:
    from auto_round import AutoRound

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    # auto-round takes rows of one length only: three rows in four reach this one.
    length = sorted(map(len, ids))[len(ids) // 4]
    rows = [torch.tensor([row[:length]]) for row in ids if len(row) >= length]
    rounding = AutoRound(
        loaded,
        tokenizer=AutoTokenizer.from_pretrained(model),
        scheme="W4A16",
        iters=0,
        group_size=size,
        device_map=device,
        dataset=rows,
        nsamples=len(rows),
        seqlen=length,
        batch_size=1,
    )
    _, made = rounding.quantize_and_save(str(folder), format="auto_awq")
    return Path(made if isinstance(made, str) else made[0])


if __name__ == "__main__":
    worker.answer(_run)
