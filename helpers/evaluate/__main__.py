"""The evaluation without Jupyter: `python -m helpers.evaluate --arms base_persona,lora --judge own`.

In: a run whose stages are finished as far as the arms need them, and any parameter of 08. Out: what the notebook
leaves, the scoreboard on the terminal, and the exit code of `helpers.course`, which executes 08 headless.
"""

import argparse
import sys
from collections.abc import Sequence

from helpers import course
from helpers.evaluate.lineup import ARMS, check_arms
from helpers.settings import BadValue


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, 1 for an evaluation that failed, 2 for words that cannot be taken, 130 for Ctrl-C."""
    options = _options(arguments)
    given = {"arms": options.arms, "judge_endpoint": options.judge, "judge_model": options.judge_model}
    try:
        if options.arms is not None:
            check_arms(options.arms.split(","))
    except BadValue as error:
        print(error, file=sys.stderr)
        return 2
    words = ["run", "--only", "08", "--profile", options.profile]
    words += ["--run-name", options.run_name] if options.run_name else []
    pairs = [f"{name}={value}" for name, value in given.items() if value is not None] + options.parameters
    return course.main([*words, *(word for pair in pairs for word in ("-p", pair))])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.evaluate", description="Play arms and compare them.")
    parser.add_argument("--arms", metavar="ARM,ARM", help=f"out of {', '.join(ARMS)} (default: the profile's)")
    parser.add_argument("--judge", metavar="ENDPOINT", help="an address ending in /v1, or own for our vLLM server")
    parser.add_argument("--judge-model", metavar="NAME", help="its name there; for own a folder or a hub id")
    parser.add_argument("--profile", default="auto", help="auto, smoke, cpu or gpu")
    parser.add_argument("--run-name", help="folder below outputs/")
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="any other parameter of 08"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
