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
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from table import RECORDS, table

from helpers.files import write_atomically
from helpers.settings import OUTPUTS, ROOT

HERE = Path(__file__).parent
METHODS, MICRO_BATCHES = ("lora", "qlora", "full", "dpo"), (1, 4)
SECONDS = 570  # for all cases together
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
    ended = run_script(["matrix_rate.py", "256" if rehearse else "8192"], rehearse, OUTPUTS)
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


def check(rehearse: bool, methods: tuple[str, ...] = METHODS, micro_batches: tuple[int, ...] = MICRO_BATCHES) -> dict:
    """Run all cases; the record."""
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
            more = f"{case['tokens_a_second']:,.0f} tokens/s" if case["status"] == "measured" else case["why"]
            print(f"{method} × {micro_batch}: {case['status']}, {more}", flush=True)
    return record | {"seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="a tiny shape on the CPU; the record goes to outputs/")
    rehearse = parser.parse_args().rehearse
    if not rehearse and not torch.cuda.is_available():
        print(
            "There is no CUDA GPU on this machine, so nothing was measured: run it where there is one, or rehearse it "
            "here with `python tests/gpu/check.py --rehearse`.",
            file=sys.stderr,
        )
        return 1
    record = check(rehearse)
    device = "-".join(record["device"]["name"].lower().split())
    folder = OUTPUTS / "gpu-check" if rehearse else RECORDS
    file = folder / f"{record['measured'][:10]}-{device}.json"
    write_atomically(file, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(table(record))
    print(f"Record: {file}")
    wrong = problems(record)
    print("\n".join(wrong), file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
