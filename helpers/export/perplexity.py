"""Perplexity of a model on what the companion is to say.

In: a model and supervised rows. Out: exp of the mean negative log-likelihood over all supervised tokens of all rows,
each token weighing the same (lower is better). Run as
`python -m helpers.export.perplexity`, it measures a folder in a process of its own, with which the kernels and memory
of a quantized model end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers.export import worker
from helpers.export.logits import supervised_logits
from helpers.supervision import Row


@dataclass(frozen=True)
class Perplexity:
    """`value` over `tokens` supervised tokens."""

    value: float
    tokens: int


def perplexity(model: PreTrainedModel | PeftModel, rows: Sequence[Row], batch_size: int = 4) -> Perplexity:
    """Token-weighted perplexity over the supervised tokens of `rows`.

    Raises:
        ValueError: no row has a supervised token.
    """
    loss, tokens = 0.0, 0
    for logits, targets in supervised_logits(model, rows, batch_size):
        loss += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
        tokens += len(targets)
    if tokens == 0:
        raise ValueError("There is no supervised token in these rows: give conversations with a companion's reply.")
    return Perplexity(math.exp(loss / tokens), tokens)


def perplexity_of_folder(folder: Path, rows: Sequence[Row], log: Path, batch_size: int = 4) -> Perplexity:
    """`perplexity` of a saved model, quantized or not, measured in a process of its own.

    On a CPU it computes in float32, on a GPU in bfloat16.

    Raises:
        worker.WorkerError: the process failed; the message holds the end of `log`.
    """
    job = {"folder": str(folder.resolve()), "rows": worker.pack_rows(rows), "batch_size": batch_size}
    return Perplexity(**worker.run("helpers.export.perplexity", job, log, f"perplexity of {folder.name}"))


def _measure(job: dict) -> dict:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=dtype, device_map=device)
    result = perplexity(model, worker.unpack_rows(job["rows"]), job["batch_size"])
    return {"value": result.value, "tokens": result.tokens}


if __name__ == "__main__":
    worker.answer(_measure)
