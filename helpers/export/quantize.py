"""Checkpoints of fewer bits for serving: GPTQ by gptqmodel; the AWQ format, and 8-bit integers, by auto-round.

In: a model folder in 16 or 32 bits and calibration rows. Out: a folder whose linear layers have fewer bits and which
vLLM serves, with tokenizer, chat template and stop tokens. Each runs as `python -m helpers.export.quantize` in a
process of its own: both libraries patch transformers when imported.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from helpers.export import made, worker
from helpers.export.serving_files import weight_bytes, write_serving_files
from helpers.files import sha256_folder, sha256_json, whole_folder
from helpers.supervision import Row

GROUP_SIZES = (128, 64, 32)
# Versions of the libraries are pinned; this counts changes of what is made here.
VERSION = 1


@dataclass(frozen=True)
class Scheme:
    """A way to quantize.

    Attributes:
        bits: of a weight.
        how: what was done, for the model card.
        looks_at: how much of the calibration rows (see `rows_used`).
        grouped: whether `group_size` weights share a scale; else an output channel's do.
        cpu: whether vLLM serves it without a GPU too.
    """

    bits: int
    how: str
    looks_at: Literal["whole", "beginnings", "nothing"] = "whole"
    grouped: bool = True
    cpu: bool = True


SCHEMES = {
    # Weights not yet rounded make up for those that are (Frantar et al., 2022, arXiv:2210.17323).
    "gptq": Scheme(4, "Her linear layers in 4 bits by GPTQ (gptqmodel)."),
    "gptq-8bit": Scheme(8, "Her linear layers in 8 bits by GPTQ (gptqmodel).", cpu=False),
    # AWQ's file format (Lin et al., 2023, arXiv:2306.00978), rounded by auto-round with `iters=0`: the rounding
    # minimizes the error weighted by the activations of the calibration rows. It is not AWQ's own search for channel
    # scales, which takes several times as long.
    "awq": Scheme(4, "Her linear layers in 4 bits in AWQ's format, rounded by auto-round.", "beginnings"),
    # 8-bit integers for weights and, token by token, for what they are multiplied with. auto-round rounds them to the
    # nearest, and looks at no activations.
    "w8a8": Scheme(
        8, "Her linear layers in 8-bit integers (W8A8, compressed-tensors) by auto-round.", "nothing", grouped=False
    ),
}
_LOOKED = {
    "whole": "Calibrated on {} training dialogues.",
    "beginnings": "Calibrated on the beginnings of {} training dialogues.",
    "nothing": "Rounded without calibration.",
}
_NEVER = {
    "awq-8bit": "AWQ's file format and vLLM's reader of it know 4 bits alone; with 8 bits take w8a8 or gptq-8bit",
}


@dataclass(frozen=True)
class Quantized:
    """`bytes` of weights on disk, `seconds` that making it took, weights that share a scale: `group_size`, 0 for an
    output channel's; `rows`: how many calibration dialogues were looked at."""

    scheme: str
    folder: Path
    bytes: int
    seconds: float
    group_size: int
    rows: int

    @property
    def how(self) -> str:
        """What was done, for the model card."""
        scheme = SCHEMES[self.scheme]
        return f"{scheme.how} {_LOOKED[scheme.looks_at].format(self.rows)}"


def check_schemes(names: Sequence[str]) -> None:
    """Raises ValueError for the first name that is no scheme, or one that nothing could serve."""
    for name in names:
        if name in _NEVER:
            raise ValueError(f"There is no {name}: {_NEVER[name]}.")
        if name not in SCHEMES:
            raise ValueError(f"There is no quantization scheme {name!r}: use {', '.join(SCHEMES)}.")


def quantize(scheme: str, model: Path, target: Path, rows: Sequence[Row], log: Path) -> Quantized:
    """Write a checkpoint of fewer bits to `target`. One that is there already, whole and made of the same, stays.

    Args:
        scheme: a name in `SCHEMES`.
        rows: calibration, as token ids (texts would get a second BOS), see `calibration.calibration_rows`.
        log: file for the library's own output.

    Raises:
        ValueError: no such scheme, or no group size divides the model's layers.
        worker.WorkerError: the library failed; the message holds the end of `log`.
    """
    check_schemes([scheme])
    size = group_size(model) if SCHEMES[scheme].grouped else 0
    used = rows_used(scheme, rows)
    packed = worker.pack_rows(used)
    made_from = sha256_json([scheme, size, packed, sha256_folder(model, ("*.safetensors", "config.json")), VERSION])
    if made.noted(target, made_from) is None:
        job = {
            "scheme": scheme,
            "model": str(model.resolve()),
            "target": str(target.resolve()),
            "rows": packed,
            "group_size": size,
            "made_from": made_from,
        }
        # On two cores gptqmodel sizes its worker pool to one and then refuses it.
        environment = {"GPTQMODEL_CPU_WORKERS": str(max(2, (os.cpu_count() or 2) // 2))}
        worker.run("helpers.export.quantize", job, log, f"{scheme} {model.name}", environment)
    seconds = made.noted(target, made_from)["seconds"]
    return Quantized(scheme, target, weight_bytes(target), seconds, size, len(used))


def rows_used(scheme: str, rows: Sequence[Row]) -> list[Row]:
    """What of the calibration rows a scheme looks at. auto-round takes rows of one length only: three in four reach it
    and are cut to it, the others are left out."""
    looks_at = SCHEMES[scheme].looks_at
    if looks_at == "nothing" or not rows:
        return []
    if looks_at == "whole":
        return list(rows)
    length = sorted(len(row.input_ids) for row in rows)[len(rows) // 4]
    return [Row(row.input_ids[:length], row.assistant_masks[:length]) for row in rows if len(row.input_ids) >= length]


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
    began, model, target = time.monotonic(), Path(job["model"]), Path(job["target"])
    ids, scheme = [row.input_ids for row in worker.unpack_rows(job["rows"])], SCHEMES[job["scheme"]]
    with whole_folder(target) as part, tempfile.TemporaryDirectory(dir=target.parent) as raw:
        if job["scheme"].startswith("gptq"):
            done = _gptqmodel(model, Path(raw), ids, scheme.bits, job["group_size"])
        else:
            done = _auto_round(model, Path(raw), ids, job["scheme"], job["group_size"])
        dtype, own = AutoConfig.from_pretrained(model).dtype, _tensor_names(model)
        for weights in done.glob("*.safetensors*"):
            _move(weights, part / weights.name, own, dtype)
        _write_config(model, done, part)
        write_serving_files(model, part)
        made.note(part, job["made_from"], seconds=round(time.monotonic() - began, 1))
    return {}


def _tensor_names(model: Path) -> set[str]:
    names = set()
    for file in model.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names |= set(tensors.keys())
    return names


def _move(weights: Path, target: Path, own: set[str], dtype: torch.dtype) -> None:
    """Move a file of weights; the model's own tensors in it that are float32, as auto-round computes on a CPU without
    bfloat16, get the model's own dtype back."""
    tensors = load_file(weights) if weights.suffix == ".safetensors" else {}
    widened = {name for name, t in tensors.items() if name in own and t.dtype == torch.float32}
    if widened:
        tensors |= {name: tensors[name].to(dtype) for name in widened}
        save_file(tensors, target, metadata={"format": "pt"})
    else:
        shutil.move(weights, target)


def _write_config(model: Path, done: Path, part: Path) -> None:
    """The model's own config.json with the quantization added: the libraries rewrite more of it than they need to."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    quantization = json.loads((done / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    quantization.get("meta", {}).pop("offload_to_disk_path", None)
    (part / "config.json").write_text(
        json.dumps(config | {"quantization_config": quantization}, indent=2), encoding="utf-8"
    )


def _gptqmodel(model: Path, folder: Path, ids: list[list[int]], bits: int, size: int) -> Path:
    from gptqmodel import GPTQModel, QuantizeConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = GPTQModel.load(str(model), QuantizeConfig(bits=bits, group_size=size), device=device)
    loaded.quantize([{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids], batch_size=1)
    loaded.save(str(folder))
    return folder


def _auto_round(model: Path, folder: Path, ids: list[list[int]], scheme: str, size: int) -> Path:
    from auto_round import AutoRound

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    rows = {"dataset": [torch.tensor([row]) for row in ids], "nsamples": len(ids), "seqlen": len(ids[0])} if ids else {}
    rounding = AutoRound(
        loaded,
        tokenizer=AutoTokenizer.from_pretrained(model),
        scheme={"awq": "W4A16", "w8a8": "INT8"}[scheme],
        iters=0,
        device_map=device,
        batch_size=1,
        **rows,
        **({"group_size": size} if size else {}),
    )
    form = {"awq": "auto_awq", "w8a8": "llm_compressor"}[scheme]
    _, done = rounding.quantize_and_save(str(folder), format=form)
    return Path(done if isinstance(done, str) else done[0])


if __name__ == "__main__":
    worker.answer(_run)
