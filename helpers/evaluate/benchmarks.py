"""Items of public benchmarks as scenarios: EQ-Bench and role-play sets in JSON Lines.

In: a `.jsonl` file whose format is named or told from its fields. Out: scenarios, and the lines that could not be used,
each with its reason; `python -m helpers.evaluate.benchmarks items.jsonl --out scenarios.jsonl` writes them, for the
parameter `scenarios` of 08. The arms answer the user's turns as the persona card's own character: whom an item wants to
be played, and its reference answer, are not taken over, and figures of the benchmark do not compare.

eq_bench            EQ-Bench 1 and 2: `prompt`, with `reference_answer`
eq_bench_3          EQ-Bench 3: `prompts`, the user's turns
japanese_rp_bench   Japanese-RP-Bench: `first_user_input`, with `scene_setting`
talk                `conversation_history`, texts that alternate from the user's
messages            `messages`, each with `role` and `content`; the user's are taken
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from helpers.evaluate.scenarios import Call, Scenario, ScenarioReading
from helpers.files import write_atomically
from helpers.jsonl import find_files, read_records, sort_out, write_quarantine
from helpers.persona import LEVELS, Level

_ID_FIELDS = ("id", "scenario_id", "question_id")


class _Message(BaseModel):
    role: str
    content: str


class _Item(BaseModel):
    """The fields that are read; all others are left alone."""

    model_config = ConfigDict(extra="ignore", strict=True)

    prompt: str | None = None
    reference_answer: JsonValue = None
    prompts: list[str] | None = Field(default=None, min_length=1)
    first_user_input: str | None = None
    scene_setting: str = ""
    conversation_history: list[str] | None = Field(default=None, min_length=1)
    messages: list[_Message] | None = Field(default=None, min_length=1)


def _users(item: _Item) -> list[str]:
    return [m.content for m in item.messages if m.role == "user"]


# Format → (the fields without which an item is not of it, the user's turns of an item)
_FORMATS: dict[str, tuple[tuple[str, ...], Callable[[_Item], list[str]]]] = {
    "eq_bench": (("prompt", "reference_answer"), lambda item: [item.prompt]),
    "eq_bench_3": (("prompts",), lambda item: item.prompts),
    "japanese_rp_bench": (("first_user_input",), lambda item: [item.first_user_input]),
    "talk": (("conversation_history",), lambda item: item.conversation_history[::2]),
    "messages": (("messages",), _users),
}
FORMATS = tuple(_FORMATS)


def read_benchmark(
    path: Path, form: str | None = None, level: Level = "friend", calls_for: Call = "calm"
) -> ScenarioReading:
    """Read a `.jsonl` file, or all those of a folder.

    Args:
        form: one of `FORMATS`; None tells it for each line from its fields.
        level, calls_for: what the items do not say, for all of them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such format, or no line can be used; the message has the first line's reason.
    """
    if form is not None and form not in _FORMATS:
        raise ValueError(f"There is no benchmark format {form!r}: use one of {', '.join(FORMATS)}.")

    def parse(value: object, name: str) -> Scenario:
        if not isinstance(value, dict):
            raise ValueError("it is JSON, but not an object")
        used = form or _told(value)
        needed, turns = _FORMATS[used]
        item = _Item.model_validate(value)
        if missing := [field for field in needed if not getattr(item, field)]:
            raise ValueError(f"an item of the format {used} needs {', '.join(missing)}")
        own = next((value[key] for key in _ID_FIELDS if value.get(key) is not None), None)
        return Scenario(
            id=f"{used}-{name if own is None else own}",
            kind="moment",
            situation=item.scene_setting or used,
            affection_level=level,
            user_turns=turns(item),
            calls_for=calls_for,
        )

    reading = ScenarioReading(*sort_out(read_records(find_files(path, "benchmark items"), parse)))
    if not reading.scenarios:
        first = next(iter(reading.quarantine), None)
        why = f" {first.file}, line {first.line}: {first.reason}." if first else " It is empty."
        raise ValueError(f"No line of {path} is a usable benchmark item.{why}")
    return reading


def _told(value: dict) -> str:
    for form, (needed, _) in _FORMATS.items():
        if all(field in value for field in needed):
            return form
    raise ValueError(f"its fields are those of none of the formats {', '.join(FORMATS)}")


def write_scenarios(file: Path, scenarios: Sequence[Scenario]) -> None:
    """Write scenarios as JSON Lines, whole or not at all."""
    write_atomically(file, "".join(f"{s.model_dump_json(exclude_defaults=True)}\n" for s in scenarios))


def main(arguments: list[str] | None = None) -> int:
    """The command line: see the module's docstring. 0, or 1 after a sentence that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m helpers.evaluate.benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("items", type=Path, help="a .jsonl file, or a folder of them")
    parser.add_argument("--out", type=Path, required=True, help="the file of scenarios; its quarantine lies beside it")
    parser.add_argument("--format", dest="form", choices=FORMATS, help="told from the fields if it is not named")
    parser.add_argument("--level", choices=LEVELS, default="friend", help="the relationship, for all items")
    parser.add_argument("--calls-for", choices=get_args(Call), default="calm", help="what a last reply should show")
    given = parser.parse_args(arguments)
    try:
        reading = read_benchmark(given.items, given.form, given.level, given.calls_for)
        write_scenarios(given.out, reading.scenarios)
        aside = given.out.with_suffix(".quarantine")
        write_quarantine(aside, reading.quarantine)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(reading.scenarios)} scenarios in {given.out}; {len(reading.quarantine)} lines set aside in {aside}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
