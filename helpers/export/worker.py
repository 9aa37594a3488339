"""A job in a Python process of its own, so that what a library patches or holds in memory ends with the job.

In: a module of this room and its job as JSON values. Out: the job's answer, or `WorkerError` with the end of the log.
The process ends when its parent does, however that ended.
"""

import _thread
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from helpers.processes import program_path
from helpers.supervision import Row

LOG_LINES = 15
# What gptqmodel, auto-round and llama.cpp say of how far they are.
_LAYER = re.compile(r"Quantizing (?:layer |model\S*layers\.)(\d+)|\[ *(\d+)/ *\d+\] +\S+ +- \[")


class WorkerError(RuntimeError):
    """The process failed: what it was to do, its exit code, and the end of its log."""


class Refused(ValueError):
    """The job cannot be done as asked; the message is the sentence for the user. Raised by a job's work, it crosses to
    the process that asked for it."""


def run(
    module: str, job: Mapping[str, object], log: Path, label: str, environment: Mapping[str, str] | None = None
) -> dict:
    """Run `python -m module` on `job` and return its answer.

    Args:
        module: calls `answer()` when run.
        job: JSON values; paths in it are absolute.
        log: file that takes all that the process prints; replaced.
        label: what the progress bar and an error call the job.
        environment: variables to set besides the present ones.

    Raises:
        Refused: the work raised it.
        WorkerError: the process did not end well.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, log.open("w", encoding="utf-8") as output:
        question, result = Path(folder) / "job.json", Path(folder) / "answer.json"
        question.write_text(json.dumps(job), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", module, question, result, str(os.getpid())],
            cwd=folder,  # some libraries leave files of their own where they run
            stdout=output,
            stderr=subprocess.STDOUT,
            # llama.cpp would start a debugger before it ends over an error.
            env={**os.environ, "PATH": program_path(), "PYTHONUNBUFFERED": "1", "GGML_NO_BACKTRACE": "1"}
            | dict(environment or {}),
        )
        try:
            _wait(process, log, label)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0 or not result.exists():
            raise WorkerError(
                f"{label}: the process ended with code {process.returncode}. End of {log.name}:\n{_tail(log)}"
            )
        found = json.loads(result.read_text(encoding="utf-8"))
        if "refused" in found:
            raise Refused(found["refused"])
        return found["done"]


def _wait(process: subprocess.Popen, log: Path, label: str) -> None:
    with tqdm(desc=label, bar_format="{desc} {elapsed}", mininterval=10) as bar:
        while process.poll() is None:
            time.sleep(0.5)
            layers = _LAYER.findall(_end_of(log, 20_000))
            at = max(layers[-1]) if layers else ""
            bar.set_description_str(f"{label}, layer {at}:" if layers else f"{label}:", refresh=False)
            bar.update()


def _end_of(log: Path, size: int) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size))
        return file.read().decode("utf-8", "replace")


def _tail(log: Path) -> str:
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", _end_of(log, 20_000)) if line.strip()]
    return "\n".join(lines[-LOG_LINES:])


def answer(work: Callable[[dict], dict]) -> None:
    """The other side of `run()`: read the job that the command line names, do it, write the answer."""
    question, result, parent = sys.argv[1:4]
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    try:
        found = {"done": work(json.loads(Path(question).read_text(encoding="utf-8")))}
    except Refused as error:
        found = {"refused": str(error)}
    Path(result).write_text(json.dumps(found), encoding="utf-8")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    _thread.interrupt_main()  # raises in the main thread, so that half-made folders are cleared away
    time.sleep(10)
    os._exit(1)


def pack_rows(rows: Sequence[Row]) -> list[list[list[int]]]:
    """Rows as JSON values."""
    return [[row.input_ids, row.assistant_masks] for row in rows]


def unpack_rows(packed: list[list[list[int]]]) -> list[Row]:
    """What `pack_rows` packed."""
    return [Row(ids, mask) for ids, mask in packed]
