"""Several processes that train one model together: how a step is shared out, who writes, where they wait.

In: what torchrun says in the environment. Out: this process's part. In a single process nothing waits and all is its
own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from torch.distributed.fsdp import MixedPrecisionPolicy

from helpers.processes import rank

SHARDED = ("fsdp2", "zero2", "zero3")  # launches in which no process holds the whole optimiser state


class BadShare(ValueError):
    """A step or the weights cannot be shared out as asked."""


def processes() -> int:
    """How many train together (WORLD_SIZE)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ


def sharded() -> bool:
    """Whether the processes share the weights out among them (FSDP, DeepSpeed) rather than hold them all (DDP)."""
    return any(os.environ.get(f"ACCELERATE_USE_{name}", "false") == "true" for name in ("FSDP", "DEEPSPEED"))


def check_sharding(trainer) -> None:
    """Raises BadShare if weights that were to be sharded are not: on a CPU accelerate trains copies, saying nothing."""
    if sharded() and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        raise BadShare("The launch asks for sharded weights, and accelerate does not shard on this device: use 'ddp'.")


def sum_in_float32(trainer) -> None:
    """FSDP2 computes in bfloat16 where the others do, and neither rounds losses to it nor adds up gradients in it, as
    accelerate would have it: a loss of 2 would be known to 0.016."""
    if trainer.is_fsdp_enabled and trainer.args.bf16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        trainer.accelerator.state.fsdp_plugin.mixed_precision_policy = policy


def shard(trainer, checkpoint: Path) -> None:
    """Share out the weights of a training that had ended: transformers does so where it trains, and only there."""
    if sharded():
        trainer._prepare_for_training(trainer.state.max_steps, trainer.get_train_dataloader(), str(checkpoint))
        if trainer.state.best_model_checkpoint:
            trainer._load_best_model()


def join(device: str) -> None:
    """Meet the other processes: NCCL on "cuda", gloo on "cpu"."""
    if launched():
        PartialState(cpu=device == "cpu")


def leave() -> None:
    """Part from the others at the end."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def wait() -> None:
    """Go on when all processes are here."""
    if processes() > 1:
        torch.distributed.barrier()


@contextmanager
def first_alone() -> Iterator[bool]:
    """The first process runs the block and the others wait for it to end; says whether this is the first."""
    first = rank() == 0
    try:
        yield first
    finally:
        wait()


def device_of(device: str) -> str | None:
    """Where this process loads its weights: on its own GPU of the machine; nowhere yet (None) if they are sharded."""
    if sharded():
        return None
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and launched() else device


def share(batch_size: int, accumulation: int, among: int) -> tuple[int, int]:
    """(micro-batch, micro-batches) of one process, so that a step has `batch_size` × `accumulation` rows whatever their
    number, and no micro-batch is larger than `batch_size`.

    Raises:
        BadShare: the rows of a step cannot be shared out equally.
    """
    rows = batch_size * accumulation
    if rows % among:
        raise BadShare(
            f"A step of {rows} rows (batch_size {batch_size} × gradient_accumulation {accumulation}) cannot be shared "
            f"out equally among {among} processes: make the product a multiple of {among}."
        )
    own = rows // among
    steps = next(n for n in range(-(-own // batch_size), own + 1) if own % n == 0)
    return own // steps, steps
