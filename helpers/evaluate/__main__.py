"""The evaluation without Jupyter: `python -m helpers.evaluate --arms base_persona,lora --judge own`.

In: a run whose stages are finished as far as the arms need them, and any parameter of 08; profile, persona and base
model are those that the run was made with, unless others are given. Out: what the notebook leaves, the scoreboard on
the terminal, and the exit code of `helpers.course`, which executes 08 headless.
"""

import argparse
import sys
from collections.abc import Sequence

from helpers import course, records, settings
from helpers.evaluate.lineup import ARMS, check_arms
from helpers.settings import BadValue, UnknownParameter


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, 1 for an evaluation that failed, 2 for words that cannot be taken, 130 for Ctrl-C."""
    options = _options(arguments)
    given = {"arms": options.arms, "judge_endpoint": options.judge, "judge_model": options.judge_model}
    try:
        if options.arms is not None:
            check_arms(options.arms.split(","))
        run = options.run_name or course.default_run(settings.choose_profile(options.profile or "auto")[0])
    except (BadValue, UnknownParameter) as error:
        print(error, file=sys.stderr)
        return 2
    made = _made_with(run)
    profile = options.profile or made.get("profile", "auto")
    given = {name: made.get(name) for name in ("persona", "base_model")} | given
    pairs = [f"{name}={value}" for name, value in given.items() if value is not None] + options.parameters
    words = ["run", "--only", "08", "--profile", profile, "--run-name", run]
    return course.main([*words, *(word for pair in pairs for word in ("-p", pair))])


def _made_with(run: str) -> dict[str, object]:
    """The settings of the last of 01 to 03 that was finished; none where none was."""
    finished = [record for record in records.status(settings.OUTPUTS / run)[:3] if record["status"] == "complete"]
    return finished[-1]["settings"] if finished else {}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.evaluate", description="Play arms and compare them.")
    parser.add_argument("--arms", metavar="ARM,ARM", help=f"out of {', '.join(ARMS)} (default: the profile's)")
    parser.add_argument("--judge", metavar="ENDPOINT", help="an address ending in /v1, or own for our vLLM server")
    parser.add_argument("--judge-model", metavar="NAME", help="its name there; for own a folder or a hub id")
    parser.add_argument("--profile", help="auto, smoke, cpu or gpu (default: the run's)")
    parser.add_argument("--run-name", help="folder below outputs/")
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="any other parameter of 08"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
