"""The course, headless: the eight notebooks in order through papermill, going on where they stopped.

In: `python -m helpers.course run|status|report`. Out: executed notebooks and run records below `outputs/<run>/`, the
scoreboard, and a table of stages with time and peak memory. A stage is run if it was never finished, if its settings,
data, notebook or an earlier stage changed, or if it is named by --from or --only.
"""

import argparse
import errno
import json
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from helpers import files, records
from helpers.files import sha256_json, write_atomically
from helpers.settings import (
    OUTPUTS,
    PROFILES,
    ROOT,
    STAGES,
    BadValue,
    UnknownParameter,
    check_parameters,
    choose_profile,
    given_parameters,
    parameters_of,
)

NOTEBOOKS = ROOT / "notebooks"
NO_SPACE = os.strerror(errno.ENOSPC)
# Raised by 01 and 02 once somebody has withdrawn a consent: what the cells had shown until then must not be kept.
WITHDRAWN = "NoConsent"
logger = logging.getLogger("helpers.course")


class CourseError(RuntimeError):
    """The course cannot go on; the message is the sentence for the user."""


def stage_named(text: str) -> str:
    """The stage for "3", "03" or "03_lora".

    Raises:
        BadValue: no such stage.
    """
    for stage in STAGES:
        if text == stage or (text.isdigit() and int(text) == int(stage[:2])):
            return stage
    raise BadValue(f"There is no stage {text!r}: use a number from 1 to 8 or one of {', '.join(STAGES)}.")


def selected(first: str | None, last: str | None, only: str | None) -> list[str]:
    """The stages that --from, --to and --only name, in course order."""
    if only:
        return [stage_named(part) for part in only.split(",")]
    begin = STAGES.index(stage_named(first)) if first else 0
    end = STAGES.index(stage_named(last)) if last else len(STAGES) - 1
    return list(STAGES[begin : end + 1])


def notebook_parameters(stage: str, profile: str, run_name: str, given: dict[str, object]) -> dict[str, object]:
    """What papermill passes to this stage's notebook: of `given`, what the stage declares."""
    known = parameters_of(stage)
    return {k: v for k, v in given.items() if k in known} | {"profile": profile, "run_name": run_name}


def fingerprint(stage: str, profile: str, run_name: str, given: dict[str, object]) -> str:
    """Hash of a stage's settings and of its notebook's code."""
    column = PROFILES.index(profile)
    values = {name: triple[column] for name, triple in parameters_of(stage).items()}
    values |= notebook_parameters(stage, profile, run_name, given)
    cells = json.loads((NOTEBOOKS / f"{stage}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return sha256_json([values, code])


def is_current(run: Path, stage: str, mark: str) -> bool:
    """Whether `stage` finished with this fingerprint, on the data and earlier artifacts that there are now."""
    try:
        inputs = records.load(run, stage).record["inputs"]
        marked = (run / stage / "fingerprint").read_text() == mark
        now = {
            name: records.load(run, name).sha256 if name in STAGES else records.data_sha256(ROOT / name)
            for name in inputs
        }
    except (FileNotFoundError, records.Mismatch):
        return False
    return marked and now == inputs


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """One runner a run. The kernel drops the lock with the process, however it ends."""
    run.mkdir(parents=True, exist_ok=True)
    busy = CourseError(
        f"Run {run.name!r} is being worked on by another runner: wait for it, or take another --run-name."
    )
    with files.locked(run / records.LOCK, busy):
        yield


class Ticker:
    """Shows on a terminal, in one line, the last line that a notebook printed. Elsewhere it shows nothing."""

    def __init__(self, terminal: TextIO):
        self.terminal, self.shown = terminal, terminal.isatty()

    def write(self, text: str) -> None:
        lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
        if self.shown and lines:
            self.terminal.write(f"\r\x1b[K  {lines[-1].strip()[: shutil.get_terminal_size().columns - 3]}")

    def flush(self) -> None:
        self.terminal.flush()

    def clear(self) -> None:
        if self.shown:
            self.terminal.write("\r\x1b[K")


def run_stage(run: Path, stage: str, parameters: dict[str, object]) -> None:
    """Execute one notebook; the executed copy is left in the stage's folder, also when it fails, unless it fails
    because a consent was withdrawn.

    Raises:
        CourseError: the notebook raised; its last line is the reason.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    output = run / stage / f"{stage}.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    ticker = Ticker(sys.stderr)
    try:
        papermill.execute_notebook(
            NOTEBOOKS / f"{stage}.ipynb",
            output,
            parameters=parameters,
            kernel_name="python3",
            cwd=str(ROOT),
            progress_bar=False,
            log_output=False,
            stdout_file=ticker,
            stderr_file=ticker,
            request_save_on_cell_execute=True,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    except PapermillExecutionError as error:
        if error.ename == WITHDRAWN:
            output.unlink(missing_ok=True)
            raise CourseError(f"{stage} stopped: {error.evalue}") from error
        raise CourseError(
            f"{stage} stopped: {error.ename}: {error.evalue} (the notebook so far: {_shown(output)})"
        ) from error
    except DeadKernelError as error:
        raise CourseError(
            f"{stage} stopped: its kernel was killed, most often for lack of memory: free some, or lower batch_size, "
            "then run the same command again."
        ) from error
    finally:
        ticker.clear()


def run_course(args: argparse.Namespace) -> None:
    profile, reason = choose_profile(args.profile)
    given = given_parameters(args.parameters)
    check_parameters(given, {name for stage in STAGES for name in parameters_of(stage)}, "The course")
    run = OUTPUTS / (args.run_name or given.get("run_name") or default_run(profile))
    stages = selected(args.first, args.last, args.only)
    if "persona" not in given or stages[0] != STAGES[0]:
        default = parameters_of(stages[0])["persona"][PROFILES.index(profile)]
        records.require_persona(run, given.get("persona") or default)
    forced = set(stages) if args.only else ({stage_named(args.first)} if args.first else set())
    with locked(run):
        print(f"Run {run.name!r}: {reason}.", flush=True)
        for stage in stages:
            mark = fingerprint(stage, profile, run.name, given)
            if stage not in forced and is_current(run, stage, mark):
                print(f"{stage:<18} done before, nothing changed", flush=True)
                continue
            print(f"{stage:<18} running …", flush=True)
            began = time.monotonic()
            with _without_fingerprint(run / stage):
                run_stage(run, stage, notebook_parameters(stage, profile, run.name, given))
            write_atomically(run / stage / "fingerprint", mark)
            print(f"{stage:<18} done in {time.monotonic() - began:.0f} s", flush=True)
        report(run)


@contextmanager
def _without_fingerprint(folder: Path) -> Iterator[None]:
    """While a stage runs it has none; the old one comes back if the stage stopped before it changed anything."""
    record, old = (_text(folder / name) for name in ("run.json", "fingerprint"))
    (folder / "fingerprint").unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        if old is not None and _text(folder / "run.json") == record:
            write_atomically(folder / "fingerprint", old)
        raise


def _text(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None


def default_run(profile: str) -> str:
    """The run that is meant where none is named."""
    return parameters_of(STAGES[0])["run_name"][PROFILES.index(profile)]


def _sentence(error: Exception) -> str:
    # Also where a library raises its own kind of error in the kernel: safetensors, sqlite, papermill.
    if NO_SPACE in str(error) or "disk is full" in str(error):
        return (
            f"The disk that holds {_shown(OUTPUTS)} is full: free some space and run the same command again; "
            "it goes on from the last whole stage or checkpoint."
        )
    return str(error)


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def stage_table(run: Path) -> list[str]:
    """Lines of stage, status, minutes and peak memory, and their sum and maximum."""
    lines, found = [f"{'stage':<18} {'status':<9} {'time':>8} {'peak memory':>12}"], records.status(run)
    for record in found:
        clock = f"{record['seconds'] / 60:.1f} min" if "seconds" in record else "–"
        peak = f"{record['peak_memory_bytes'] / 2**30:.1f} GiB" if record.get("peak_memory_bytes") else "–"
        lines.append(f"{record['stage']:<18} {record['status']:<9} {clock:>8} {peak:>12}")
    minutes = sum(record.get("seconds", 0) for record in found) / 60
    highest = max(record.get("peak_memory_bytes") or 0 for record in found) / 2**30
    return [*lines, f"{'all':<28} {minutes:>4.1f} min {highest:>8.1f} GiB"]


def scoreboard_lines(run: Path) -> list[str]:
    """The scoreboard as text: a metric a line, mean and 95 % interval of each arm. Empty before 08_evaluate."""
    arms = records.status(run)[-1].get("metrics", {}).get("scoreboard", {})
    metrics = list(dict.fromkeys(metric for cells in arms.values() for metric in cells))
    lines = [f"{'metric':<14}" + "".join(f"{arm:>19}" for arm in arms)] if arms else []
    for metric in metrics:
        cells = (arm.get(metric) for arm in arms.values())
        shown = ("{mean:.2f} [{low:.2f}, {high:.2f}]".format(**cell) if cell else "–" for cell in cells)
        lines.append(f"{metric:<14}" + "".join(f"{text:>19}" for text in shown))
    return lines


def report(run: Path) -> None:
    """Print the scoreboard, the table of stages, and where the report is."""
    print("\n".join(["", *scoreboard_lines(run), "", *stage_table(run)]))
    page = run / "08_evaluate" / "report.html"
    if page.exists():
        print(f"\nThe report: {_shown(page)}")


def newest_run() -> Path:
    """The run that was worked on last.

    Raises:
        CourseError: there is none.
    """
    runs = sorted(OUTPUTS.glob("*/*/run.json"), key=lambda p: p.stat().st_mtime)
    if not runs:
        raise CourseError("There is no run yet: `make course` makes one.")
    return runs[-1].parent.parent


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0, 1 for a stage that failed, 2 for words that cannot be taken, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m helpers.course", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the course, or go on with it")
    run.add_argument("--profile", default="auto", help="auto, smoke, cpu or gpu")
    run.add_argument(
        "--from", dest="first", metavar="STAGE", help="run this stage even if it is done, then the rest as needed"
    )
    run.add_argument("--to", dest="last", metavar="STAGE", help="stop after this stage")
    run.add_argument("--only", metavar="STAGE[,STAGE]", help="run just these, even if they are done")
    run.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="any notebook parameter"
    )
    for command in (
        run,
        commands.add_parser("status", help="what is done"),
        commands.add_parser("report", help="the scoreboard"),
    ):
        command.add_argument("--run-name", help="folder below outputs/")
    args = parser.parse_args(arguments)
    # A shell that starts a program in the background has it ignore Ctrl-C; the course must be interruptible there too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        if args.command == "run":
            run_course(args)
        else:
            folder = OUTPUTS / args.run_name if args.run_name else newest_run()
            print("\n".join(stage_table(folder))) if args.command == "status" else report(folder)
    except (CourseError, UnknownParameter, BadValue, records.Mismatch, OSError) as error:
        print(_sentence(error), file=sys.stderr)
        return 2 if isinstance(error, UnknownParameter) else 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again to go on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
