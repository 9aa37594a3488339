"""`make gpu-check`: does training a 7B on this GPU go as fast, and take as much memory, as it should?

In: a CUDA GPU, nothing from the network. Out: a record in `tests/gpu/records/`, of which `table.py` makes README's
table. Random weights in the true shape of Qwen2.5-7B go through the house's own trainers: LoRA, QLoRA, full fine-tuning
and DPO at context 2,048, micro-batch 1 and 4, each in a process of its own, so that one that runs out of memory does
not end the rest. `--rehearse` runs the same code on the CPU with a tiny shape.

**Nothing has been measured on a GPU yet.** Only the rehearsal has been run; what needs CUDA (the paged and the 8-bit
optimizers, gradient checkpointing, Triton's head, the peaks of memory) has not.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from table import RECORDS, table

from helpers.files import write_atomically
from helpers.settings import OUTPUTS, ROOT, no_gpu

HERE = Path(__file__).parent
METHODS, MICRO_BATCHES = ("lora", "qlora", "full", "dpo"), (1, 4)
SECONDS = 540  # for all cases together, so that with what is around them ten minutes are enough
MATRIX_SECONDS = 120
TOLERANCE = 0.1  # of the measured peak
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "torchao", "triton")


def run_case(method: str, micro_batch: int, rehearse: bool, seconds: float) -> dict[str, object]:
    """What `case.py` measures; "failed" with the last line of its error, or "out of time" after `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = ["case.py", method, str(micro_batch), str(answer), *(["--rehearse"] if rehearse else [])]
        try:
            ended = run_script(command, rehearse, Path(folder), seconds)
        except subprocess.TimeoutExpired:
            return {"status": "out of time", "why": f"{SECONDS} s for all cases are over"}
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"])[-1]
            return {"status": "failed", "why": last, "stderr": ended.stderr[-4000:]}
        return json.loads(answer.read_text(encoding="utf-8"))


def run_script(
    command: Sequence[str], rehearse: bool, outputs: Path, seconds: float | None = None
) -> subprocess.CompletedProcess:
    """A script of this folder with its arguments, on one GPU or, to rehearse, none; off line; it writes to `outputs`.

    Raises:
        subprocess.TimeoutExpired: it took longer than `seconds`, and was ended.
    """
    card = "" if rehearse else os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH")]  # tests/, for small.py
    own = {"CUDA_VISIBLE_DEVICES": card, "HF_HUB_OFFLINE": "1", "COMPANION_OUTPUTS": str(outputs)}
    return subprocess.run(
        [sys.executable, HERE / command[0], *command[1:]],
        env=os.environ | own | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=None if seconds is None else max(seconds, 0.1),
    )


def measure_matrix(rehearse: bool) -> dict[str, object]:
    """What `matrix_rate.py` measures.

    Raises:
        SystemExit: it cannot.
    """
    command = ["matrix_rate.py", "256" if rehearse else "8192"]
    try:
        ended = run_script(command, rehearse, OUTPUTS, MATRIX_SECONDS)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"The device did not multiply two matrices in {MATRIX_SECONDS} s: does it hang?") from None
    if ended.returncode:
        raise SystemExit(f"The device's matrix rate could not be measured: {ended.stderr}")
    return json.loads(ended.stdout)


def problems(record: dict) -> list[str]:
    """A sentence for each case that is not as it should be: it failed, ran out of memory although its budget fits, has
    a gradient norm that is not above 0, or took a peak of memory that is not within `TOLERANCE` of its budget."""
    found = []
    for case in record["cases"]:
        name = f"{case['method']} at micro-batch {case['micro_batch']}"
        if case["status"] in ("failed", "out of time"):
            found.append(f"{name}: {case['status']}, {case['why']}.")
        if case["status"] == "out of memory":
            found.append(f"{name}: out of memory, where the budget is {case['predicted_gib']:.1f} GiB: {case['why']}.")
        if case["status"] != "measured":
            continue
        if not all(norm > 0 and math.isfinite(norm) for norm in case["gradient_norms"]):
            found.append(f"{name}: a gradient norm is not above 0: {case['gradient_norms']}.")
        if "ratio" in case and abs(case["ratio"] - 1) > TOLERANCE:
            found.append(
                f"{name}: the budget is {case['predicted_gib']:.1f} GiB, {case['ratio']:.2f} of the measured peak."
            )
    return found


def surroundings(rehearse: bool) -> dict[str, object]:
    """When, on what, with what."""
    commit = _output("git", "-C", str(ROOT), "rev-parse", "HEAD")
    changed = commit != "unknown" and _output("git", "-C", str(ROOT), "status", "--porcelain")
    device: dict[str, object] = {"name": "CPU"}
    if not rehearse:
        card = torch.cuda.get_device_properties(0)
        driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        device = {
            "name": card.name,
            "memory_gib": card.total_memory / 2**30,
            "capability": f"{card.major}.{card.minor}",
            "driver": driver.splitlines()[0],
            "cuda": torch.version.cuda,
        }
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit + (" with changes" if changed else ""),
        "device": device,
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
    }


def _output(*command: str) -> str:
    """What the command prints, or "unknown" if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return "unknown"
    ended = subprocess.run(command, capture_output=True, text=True)
    return "unknown" if ended.returncode else ended.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check(
    rehearse: bool,
    methods: tuple[str, ...] = METHODS,
    micro_batches: tuple[int, ...] = MICRO_BATCHES,
    keep: Callable[[dict], None] = lambda record: None,
) -> dict:
    """Run all cases; the record. `keep` is given what there is of it after each: an end from outside loses none."""
    began = time.monotonic()

    def left() -> float:
        return SECONDS - (time.monotonic() - began)

    record = surroundings(rehearse) | {"rehearsal": rehearse, "matrix": measure_matrix(rehearse)}
    rate = record["matrix"]["tflops"]
    print(f"{record['device']['name']}: {rate:.3g} TFLOP/s measured in {record['matrix']['dtype']}", flush=True)
    record["cases"] = []
    for method in methods:
        for micro_batch in micro_batches:
            case = {"method": method, "micro_batch": micro_batch} | run_case(method, micro_batch, rehearse, left())
            if case["status"] == "measured":
                case["share"] = case["model_tflops"] / rate
                case["share_with_recomputation"] = case["tflops_with_recomputation"] / rate
            if "peak_gib" in case:
                case["ratio"] = case["predicted_gib"] / (case["peak_gib"] + case["paged_gib"])
            record["cases"].append(case)
            record["seconds"] = round(time.monotonic() - began, 1)
            keep(record)
            more = f"{case['tokens_a_second']:,.0f} tokens/s" if case["status"] == "measured" else case["why"]
            print(f"{method} × {micro_batch}: {case['status']}, {more}", flush=True)
    return record


def no_compiler() -> str:
    """What Triton and PyTorch's compiler miss to build their kernels, as a sentence; "" if nothing."""
    header = Path(sysconfig.get_path("include", "posix_prefix")) / "Python.h"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "A C compiler is missing, with which Triton builds its kernels: install gcc."
    if not header.exists():
        return (
            f"{header} is missing, which Triton's kernels are built with: install this Python's headers (python3-dev)."
        )
    return ""


def file_of(record: dict) -> Path:
    device = "-".join(record["device"]["name"].lower().split())
    folder = OUTPUTS / "gpu-check" if record["rehearsal"] else RECORDS
    return folder / f"{record['measured'][:10]}-{device}.json"


def write(record: dict) -> None:
    """Whole or not at all."""
    write_atomically(file_of(record), json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="a tiny shape on the CPU; the record goes to outputs/")
    rehearse = parser.parse_args().rehearse
    if not rehearse and not torch.cuda.is_available():
        print(
            f"Nothing was measured, because {no_gpu()}. Here it can be rehearsed: `python tests/gpu/check.py "
            "--rehearse`.",
            file=sys.stderr,
        )
        return 1
    if not rehearse and (missing := no_compiler()):
        print(missing, file=sys.stderr)
        return 1
    record = check(rehearse, keep=write)
    print(table(record))
    print(f"Record: {file_of(record)}")
    wrong = problems(record)
    print("\n".join(wrong), file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
