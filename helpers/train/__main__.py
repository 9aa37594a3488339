"""A training stage outside its notebook, in one process or many: `python -m helpers.train 03_lora -p epochs=2`.

In: a stage and any of its notebook's parameters. Out: the adapter and the run record, as the notebook leaves them, but
without its replies and figures. `-p launch=ddp -p processes=2` shares the steps out among processes.
"""

import argparse
import contextlib
import gc
import logging
import os
import signal
import sys

from helpers import processes, records, settings
from helpers.course import CourseError, locked, stage_named
from helpers.train import cells, launcher, ranks
from helpers.train.budget import memory_at_hand
from helpers.train.monitor import TrainingStopped
from helpers.train.optimizers import UnfitOptimizer
from helpers.train.out_of_memory import OutOfMemory, in_one_sentence
from helpers.train.preferences import TooFewPairs
from helpers.train.preflight import PreflightError

REFUSALS = (
    CourseError,
    records.Mismatch,
    launcher.LaunchError,
    ranks.BadShare,
    PreflightError,
    TrainingStopped,
    OutOfMemory,
    TooFewPairs,
    UnfitOptimizer,
)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0, 1 for a run that failed, 2 for words that cannot be taken, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m helpers.train", description=__doc__.split("\n")[0])
    parser.add_argument("stage", help="a stage that trains, such as 03 or 03_lora")
    parser.add_argument("--profile", default="auto", help="auto, smoke, cpu or gpu")
    parser.add_argument("--run-name", help="folder below outputs/")
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="any parameter of the notebook"
    )
    parser.add_argument("--answers", help=argparse.SUPPRESS)
    parser.add_argument("--unrecorded", action="store_true", help=argparse.SUPPRESS)
    launcher.add_machine_options(parser)
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ranks.launched():
        _one_of_many(*_asked(args), args)
        return 0
    try:
        _alone(*_asked(args), launcher.machines(args))
    except (settings.UnknownParameter, settings.BadValue) as error:
        return _say(error, 2)
    except (*REFUSALS, OSError) as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        return _say("Interrupted. Run the same command again to go on from the last checkpoint.", 130)
    return 0


def _asked(args: argparse.Namespace) -> tuple[str, dict[str, object]]:
    stage = stage_named(args.stage)
    if not cells.tagged(stage, "train"):
        raise CourseError(f"{stage} has no cells tagged `train`: take one that trains, such as 03_lora.")
    given = settings.given_parameters(args.parameters)
    settings.check_parameters(given, settings.parameters_of(stage), stage)
    given = {"profile": args.profile} | given
    return stage, given | ({"run_name": args.run_name} if args.run_name else {})


def _alone(stage: str, given: dict[str, object], machines: "launcher.Machines") -> None:
    cfg = settings.resolve(stage, given)
    launcher.check(cfg, machines)
    with locked(cfg.run) if machines.rank == 0 else contextlib.nullcontext():
        if cfg.launch == "none":
            record = cells.record(_run(cfg, given))
            print(f"{stage} is {record['status']}: {os.path.relpath(cfg.folder)}")
            return
        launcher.run(cfg, machines)
        print(f"{stage} was trained by {cfg.processes} processes: {os.path.relpath(cfg.folder)}")


def _one_of_many(stage: str, given: dict[str, object], args: argparse.Namespace) -> None:
    cfg = settings.resolve(stage, given)
    with contextlib.ExitStack() as stack:
        if processes.rank() > 0:
            logging.disable(logging.INFO)
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        stack.enter_context(launcher.telling(args.answers))
        launcher.check_inside(cfg)
        ranks.join(cfg.hardware.device)
        variables = _run(cfg, given)
        if not args.unrecorded:
            cells.record(variables)
        launcher.answer(args.answers, variables["measured"])
        # What DDP keeps of the group must go before the group: the other way round gloo's threads can wait for ever.
        variables.clear()
        gc.collect()
        ranks.wait()
        ranks.leave()


def _run(cfg: settings.Settings, given: dict[str, object]) -> dict[str, object]:
    def sentence() -> str:
        return (
            f"Out of memory in {cfg.stage} (there are {memory_at_hand(cfg.hardware.device):.1f} GiB): lower batch_size "
            "or max_length, or free what other programs hold."
        )

    with in_one_sentence(sentence):
        return cells.run(cfg.stage, given)


def _say(words: object, code: int) -> int:
    print(words, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
