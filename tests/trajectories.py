"""Short training runs, stored, as TRL's `tests/invariant` does: loss and gradient norm of each step, and where it ran.

In: a trainer, a name. Out: nothing, or an assertion that says where the run left the stored way. `STORE_TRAJECTORIES=1`
stores anew, in `tests/trajectories/<name>.json`: do so only when the change is meant, and say why in the commit.
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
# Relative: where the stored one was made, and elsewhere.
SAME, ELSEWHERE = 1e-5, 0.02


class OtherEnvironment(Warning):
    """The stored trajectory was made with other versions or on another kind of CPU."""


def environment() -> dict[str, str]:
    """What a trajectory's last digits depend on."""
    machine = {"machine": platform.machine(), "cpu": torch.backends.cpu.get_cpu_capability()}
    return {package: version(package) for package in PACKAGES} | machine


def of(trainer) -> tuple[list[float], list[float]]:
    """Train `STEPS` steps, each logged: losses, gradient norms. On one thread, so that sums are added in one order, and
    without warm-up, in which the first step would move nothing."""
    threads, trainer.args.warmup_steps = torch.get_num_threads(), 0
    torch.set_num_threads(1)
    try:
        sft.run(trainer, "cpu")
    finally:
        torch.set_num_threads(threads)
    steps = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, STEPS + 1)), "each step is to be logged, and no more"
    return [float(entry["loss"]) for entry in steps], [float(entry["grad_norm"]) for entry in steps]


def check(name: str, losses: list[float], norms: list[float]) -> None:
    """Compare with the stored trajectory `name`: to `SAME` in its environment, else to `ELSEWHERE`, with a warning that
    says what differs.

    Raises:
        AssertionError: it differs, or none is stored.
    """
    file, here = FOLDER / f"{name}.json", environment()
    if os.environ.get("STORE_TRAJECTORIES"):
        stored = {"environment": here, "losses": losses, "grad_norms": norms}
        write_atomically(file, json.dumps(stored, indent=1) + "\n")
        return
    assert file.exists(), (
        f"No trajectory {name} is stored: run this test with STORE_TRAJECTORIES=1 and commit {file.name}."
    )
    stored = json.loads(file.read_text(encoding="utf-8"))
    tolerance, there = SAME, stored["environment"]
    if there != here:
        tolerance = ELSEWHERE
        other = ", ".join(
            f"{key} {here.get(key)} (stored with {there.get(key)})" for key in here if here[key] != there.get(key)
        )
        warnings.warn(f"{name} is compared to {tolerance:.0%} only: here is {other}.", OtherEnvironment, stacklevel=2)
    for what, now, then in (("loss", losses, stored["losses"]), ("gradient norm", norms, stored["grad_norms"])):
        assert len(now) == len(then), f"{name}: {len(now)} steps, and {len(then)} are stored."
        for step, (a, b) in enumerate(zip(now, then, strict=True), 1):
            assert abs(a - b) <= tolerance * abs(b), (
                f"{name}: the {what} of step {step} is {a:.8g}, and {b:.8g} is stored (allowed: {tolerance:g} of it). "
                "If that is meant, store anew with STORE_TRAJECTORIES=1."
            )
