"""The command line: `python -m helpers.online learn`, which can be scheduled, `promote` and `roll-back`.

In: a finished run and the bot's exports. Out: one sentence, and an exit code: 0 something was promoted, or there was
too little to learn from; 1 it failed; 2 words that cannot be taken; 3 refused by intake or gate; 4 somebody else is at
work in the run; 130 interrupted.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.course import CourseError, locked, stage_named
from helpers.evaluate.metrics import METRICS
from helpers.online import loop
from helpers.records import load
from helpers.serve.trained import newest_run
from helpers.settings import OUTPUTS, BadValue, UnknownParameter, given_parameters
from helpers.train.continual import Busy

EXPORTS = OUTPUTS / "bot" / "exports"
CODES = {"promoted": 0, "waiting": 0, "refused": 3}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, after one sentence."""
    options = _options(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = OUTPUTS / options.run_name if options.run_name else newest_run(OUTPUTS)
        if not run.is_dir():
            raise FileNotFoundError(f"There is no run {run.name!r}: `python -m helpers.course run` makes one.")
        with locked(run):
            result = {"learn": _learn, "promote": _promote, "roll-back": _roll_back}[options.command](run, options)
    except (UnknownParameter, BadValue) as error:
        return _say(error, 2)
    except (Busy, CourseError) as error:
        return _say(error, 4)
    except KeyboardInterrupt:
        return _say("Interrupted. Run the same command again to go on from here.", 130)
    except (RuntimeError, ValueError, OSError) as error:
        return _say(error, 1)
    print(result.sentence)
    return CODES[result.status]


def _learn(run: Path, options: argparse.Namespace) -> loop.Result:
    course = loop.read_course(run, given_parameters(options.parameters))
    return loop.learn(course, options.exports, loop.vllm(course), options.target, options.at_least)


def _promote(run: Path, options: argparse.Namespace) -> loop.Result:
    stage = stage_named(options.stage)
    course = loop.read_course(run, given_parameters(options.parameters))
    trained = load(OUTPUTS / options.of if options.of else run, stage)
    return loop.promote(course, trained, loop.vllm(course), options.target)


def _roll_back(run: Path, _: argparse.Namespace) -> loop.Result:
    return loop.roll_back(run)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.online", description="Learn from the bot's chats.")
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("learn", help="learn from new chats, and serve what came of it if it passes the gate")
    learn.add_argument("--exports", type=Path, default=EXPORTS, help="the bot's folder (default: outputs/bot/exports)")
    learn.add_argument("--at-least", type=int, default=loop.AT_LEAST, help="so many new talks, else nothing is done")
    promote = commands.add_parser("promote", help="serve the adapter of a stage if it passes the gate")
    promote.add_argument("stage", help="a stage that trained it, such as 03 or 05_dpo")
    promote.add_argument("--of", metavar="RUN", help="the run that trained it (default: the same)")
    for command in (learn, promote):
        command.add_argument("--target", choices=list(METRICS), default=loop.TARGET, help="what must get better")
        command.add_argument(
            "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="any parameter of 03 or 08"
        )
    for command in (
        learn,
        promote,
        commands.add_parser("roll-back", help="go back to the adapter before the current one"),
    ):
        command.add_argument("--run-name", help="a run in outputs/ (default: the one that is served)")
    return parser.parse_args(arguments)


def _say(words: object, code: int) -> int:
    print(words, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
