"""Short training runs, stored, as TRL's `tests/invariant` does: loss and gradient norm of each step, and where it ran.

In: a trainer, a name. Out: nothing, or an assertion that says where the run left the stored way. Each kind of CPU and
set of versions has its own. `STORE_TRAJECTORIES=1` stores this environment's anew, in `tests/trajectories/<name>.json`:
do so only when the change is meant, and say why in the commit.
"""

import json
import os
import platform
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

from helpers.files import write_atomically
from helpers.train import sft

FOLDER = Path(__file__).parent / "trajectories"
STEPS = 3
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes")
# Relative: where one was stored in this environment, and elsewhere, by the number type of the trained weights: bfloat16
# has 8 bits, and rounds otherwise on another kind of CPU (0.044 seen between AVX2 and AMX after two steps).
SAME, ELSEWHERE = 1e-5, {"float32": 0.02, "bfloat16": 0.08}


class OtherEnvironment(Warning):
    """The stored trajectories were made with other versions or on other kinds of CPU."""


def environment() -> dict[str, str]:
    """What a trajectory's last digits depend on."""
    cpu = torch.backends.cpu.get_cpu_capability()
    if torch.cpu._is_avx512_bf16_supported():
        cpu += " bf16"
    if torch.cpu._is_amx_tile_supported():
        cpu += " AMX"
    return {package: version(package) for package in PACKAGES} | {"machine": platform.machine(), "cpu": cpu}


def of(trainer) -> dict:
    """Train `STEPS` steps, each logged: `losses`, `grad_norms`, and `dtype` of the trained weights. On one thread, so
    that sums are added in one order, and without warm-up, in which the first step would move nothing."""
    # Before training: the best checkpoint, which is loaded after it, may be of another type.
    (dtype,) = {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad}
    threads, trainer.args.warmup_steps = torch.get_num_threads(), 0
    torch.set_num_threads(1)
    try:
        sft.run(trainer, "cpu")
    finally:
        torch.set_num_threads(threads)
    steps = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, STEPS + 1)), "each step is to be logged, and no more"
    return {
        "losses": [float(entry["loss"]) for entry in steps],
        "grad_norms": [float(entry["grad_norm"]) for entry in steps],
        "dtype": str(dtype).removeprefix("torch."),
    }


def check(name: str, run: dict) -> None:
    """Compare `run`, as `of` gives it, with the stored trajectory `name` of this environment, to `SAME`. If none is
    stored for it: with each that is, to `ELSEWHERE`, with a warning that says what differs.

    Raises:
        AssertionError: it differs, or none is stored.
    """
    file, here = FOLDER / f"{name}.json", environment()
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    if os.environ.get("STORE_TRAJECTORIES"):
        kept = [one for one in stored if one["environment"] != here]
        write_atomically(file, json.dumps([*kept, {"environment": here} | run], indent=1) + "\n")
        return
    assert stored, f"No trajectory {name} is stored: run this test with STORE_TRAJECTORIES=1 and commit {file.name}."
    ours = [one for one in stored if one["environment"] == here]
    for one in ours or stored:
        tolerance = SAME if ours else ELSEWHERE[run["dtype"]]
        if not ours:
            there = one["environment"]
            other = ", ".join(
                f"{key} {here[key]} (stored with {there[key]})" for key in here if here[key] != there[key]
            )
            warnings.warn(
                f"{name} is compared to {tolerance:.0%} only: here is {other}.", OtherEnvironment, stacklevel=2
            )
        _same_way(name, run, one, tolerance)


def _same_way(name: str, run: dict, stored: dict, tolerance: float) -> None:
    assert run["dtype"] == stored["dtype"], f"{name}: trained in {run['dtype']}, and {stored['dtype']} is stored."
    for what, key in (("loss", "losses"), ("gradient norm", "grad_norms")):
        assert len(run[key]) == len(stored[key]), f"{name}: {len(run[key])} steps, and {len(stored[key])} are stored."
        for step, (now, then) in enumerate(zip(run[key], stored[key], strict=True), 1):
            assert abs(now - then) <= tolerance * abs(then), (
                f"{name}: the {what} of step {step} is {now:.8g}, and {then:.8g} is stored (allowed: {tolerance:g} of "
                "it). If that is meant, store anew with STORE_TRAJECTORIES=1."
            )
