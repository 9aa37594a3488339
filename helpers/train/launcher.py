"""Training in many processes: the `accelerate launch` command for a stage's settings, run to its end.

In: settings whose `launch` is not "none", the machines. Out: what the processes measured, or `LaunchError` in one
sentence. Their output goes to `<stage>/launch.log`. No process outlives this one, however it ends.

Run so far: "ddp" and, by a patch that lets accelerate shard on a CPU (tests/fsdp_on_cpu.py), "fsdp2", each with two
processes and gloo. "zero2" and "zero3" were only read by accelerate's own classes: DeepSpeed is not installed. Nothing
was run on several machines or GPUs.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from helpers.files import write_atomically
from helpers.processes import die_with_parent, rank
from helpers.settings import ROOT, BadValue, Settings
from helpers.train import ranks

CONFIGURATIONS = Path(__file__).parent / "launch"
AGENT = "COMPANION_AGENT"  # environment: process id of the torchrun agent, for its children
_PATIENCE = 10  # seconds for processes to end by themselves


class LaunchError(RuntimeError):
    """The processes did not end well."""


@dataclass(frozen=True)
class Machines:
    """How many machines take part, which of them this is, and where the first one (rank 0) listens."""

    count: int = 1
    rank: int = 0
    address: str | None = None
    port: int = 29500


def check(cfg: Settings, machines: Machines) -> None:
    """Raises BadValue if these settings cannot be launched on this machine."""
    if cfg.launch == "none":
        if cfg.processes != 1:
            raise BadValue(f"processes={cfg.processes} takes a launch: set launch='ddp', 'fsdp2', 'zero2' or 'zero3'.")
        return
    if cfg.processes < 2:
        raise BadValue(f"launch={cfg.launch!r} takes processes of 2 or more, not {cfg.processes}.")
    if cfg.processes % machines.count:
        raise BadValue(f"{cfg.processes} processes cannot be spread equally over {machines.count} machines.")
    if machines.count > 1 and not machines.address:
        raise BadValue("Several machines need --address: the name of the first one, as all others reach it.")
    ranks.share(cfg.batch_size, cfg.gradient_accumulation, cfg.processes)
    if cfg.launch in ranks.SHARDED:
        _check_sharded(cfg)
    here, gpus = cfg.processes // machines.count, torch.cuda.device_count()
    if cfg.hardware.device == "cuda" and here > gpus:
        raise BadValue(f"{here} processes on this machine need as many GPUs; it has {gpus}: lower processes.")


def _check_sharded(cfg: Settings) -> None:
    if cfg.hardware.device != "cuda":
        raise BadValue(f"launch={cfg.launch!r} shards the model over GPUs, and there is none: use launch='ddp'.")
    if cfg.stage == "05_dpo":
        raise BadValue(f"launch={cfg.launch!r} cannot hold DPO's reference beside what it shards: use launch='ddp'.")
    if cfg.stage == "04_qlora":
        raise BadValue(f"launch={cfg.launch!r} cannot shard a base that is held in 4 bits: use launch='ddp'.")
    if cfg.launch.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        raise BadValue(f"launch={cfg.launch!r} needs the package deepspeed: `pip install deepspeed`, or use 'fsdp2'.")


def check_inside(cfg: Settings) -> None:
    """In a launched process. Raises BadValue if it was launched in another way than its settings say."""
    if cfg.launch == "none" or ranks.processes() != cfg.processes or ranks.sharded() != (cfg.launch in ranks.SHARDED):
        raise BadValue(
            f"This is one of {ranks.processes()} processes, and the settings say launch={cfg.launch!r}, "
            f"processes={cfg.processes}: give both with -p, and the configuration of that name."
        )


def command(cfg: Settings, machines: Machines, answers: Path, recorded: bool) -> list[str]:
    """The command line; what it starts leaves its answer in the folder `answers` and, if `recorded`, completes the
    stage's run record."""
    words = [sys.executable, "-m", "helpers.train.launcher"]
    words += ["--config_file", str(CONFIGURATIONS / f"{cfg.launch}.yaml"), "--num_processes", str(cfg.processes)]
    words += ["--num_machines", str(machines.count), "--machine_rank", str(machines.rank)]
    if machines.count > 1:
        words += ["--main_process_ip", str(machines.address), "--main_process_port", str(machines.port)]
    else:
        words += ["--main_process_port", "0"]  # any free one
    words += ["--module", "helpers.train.worker", cfg.stage, "--answers", str(answers)]
    words += [] if recorded else ["--unrecorded"]
    given = {name: json.dumps(value, ensure_ascii=False) for name, value in cfg.values.items()}
    return words + [word for name, value in given.items() for word in ("-p", f"{name}={value}")]


def run(cfg: Settings, machines: Machines, recorded: bool = True) -> dict[str, object]:
    """Train in `cfg.processes` processes; what they measured (on the first machine; elsewhere {}).

    Raises:
        LaunchError: they did not end well.
    """
    log = cfg.folder / "launch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) * machines.count // cfg.processes)
    with tempfile.TemporaryDirectory() as folder, log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command(cfg, machines, Path(folder), recorded),
            cwd=ROOT,
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,  # a Ctrl-C at the terminal comes here alone
        )
        try:
            for line in process.stdout:
                output.write(line)
                output.flush()
                print(line, end="", flush=True)
            code = process.wait()
        finally:
            _end(process)
        if code != 0:
            raise LaunchError(f"Training in {cfg.processes} processes ({cfg.launch}) stopped: {_reason(folder, log)}")
        answer = Path(folder) / "measured.json"
        return json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {}


def launch(cfg: Settings, model: torch.nn.Module) -> dict[str, object]:
    """From a notebook: train in the processes that its settings ask for, while `model` (if not quantized) waits in main
    memory; what they measured. {} where that is this process alone, and in those processes themselves.

    Raises:
        BadValue: these settings cannot be launched here.
        LaunchError: the processes did not end well.
    """
    if cfg.launch == "none" or ranks.launched():
        return {}
    check(cfg, Machines())
    if cfg.hardware.device == "cpu" or getattr(model, "is_quantized", False):
        return run(cfg, Machines(), recorded=False)
    model.to("cpu")
    torch.cuda.empty_cache()
    measured = run(cfg, Machines(), recorded=False)
    model.to(cfg.hardware.device)
    return measured


def _end(process: subprocess.Popen) -> None:
    if process.poll() is not None:
        return
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, _PATIENCE)
    for left in alive:
        left.kill()
    process.wait()


def _reason(answers: str, log: Path) -> str:
    errors = sorted(Path(answers).glob("error-*.txt"), key=lambda path: path.stat().st_mtime_ns)
    where = f"(its log: {os.path.relpath(log)})"
    if errors:
        return f"{errors[0].read_text(encoding='utf-8')} {where}"
    if "SIGKILL" in log.read_text(encoding="utf-8", errors="replace"):
        return f"a process was killed, most often for lack of memory: lower batch_size, or free some {where}"
    return f"no process said why {where}"


@contextmanager
def telling(answers: str | None) -> Iterator[None]:
    """In a launched process: an error of the block is also left in the folder `answers`, for `run()`."""
    try:
        yield
    except Exception as error:
        if answers:
            write_atomically(Path(answers) / f"error-{rank()}.txt", f"{type(error).__name__}: {error}")
        raise


def answer(answers: str | None, measured: dict[str, object]) -> None:
    """In a launched process: what `run()` returns, from the first one."""
    if answers and rank() == 0:
        write_atomically(Path(answers) / "measured.json", json.dumps(measured))


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """--machines, --machine, --address, --port."""
    several = parser.add_argument_group("several machines, which share the folder of outputs")
    several.add_argument("--machines", type=int, default=1, help="how many; run the same command on each")
    several.add_argument("--machine", type=int, default=0, help="which one this is, from 0")
    several.add_argument("--address", help="name or IP address of machine 0")
    several.add_argument("--port", type=int, default=29500, help="a free port of machine 0")


def machines(args: argparse.Namespace) -> Machines:
    """What the options say."""
    return Machines(args.machines, args.machine, args.address, args.port)


if __name__ == "__main__":
    die_with_parent()
    os.environ[AGENT] = str(os.getpid())
    from accelerate.commands.launch import main

    main()
