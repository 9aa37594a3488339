"""The questionnaire as a page of its own: one HTML file for people who have a browser and nothing else.

In: blinded samples. Out: `ratings.html`, which loads nothing and sends nothing, keeps the answers in the browser as
they are given, goes on where its rater stopped, and saves them as a JSON file on request. `read_answers` takes that
file into the database. Which arm a sample is from does not stand in the page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from helpers.evaluate.questionnaire import QUESTIONS, SCALE, Sample, arms_and_units, save_ratings
from helpers.evaluate.report import TEMPLATES
from helpers.files import sha256_json, write_atomically
from helpers.jsonl import load_document, reason_of

FORMAT = "companion-ratings-1"


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sample: str
    question: Literal[*QUESTIONS]
    value: Annotated[int, Field(strict=True, ge=SCALE[0], le=SCALE[-1])]
    at: AwareDatetime


class _Answers(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[FORMAT]
    rater: Annotated[str, Field(min_length=1, max_length=60)]
    answers: list[_Answer]


def write_page(file: Path, samples: Sequence[Sample], name: str) -> None:
    """Write the page; `name` is whom the samples are about. Other samples or questions make it another study, whose
    answers a browser keeps apart."""
    shown = sorted(samples, key=lambda sample: sample.id)
    study = {
        "id": sha256_json([[s.id for s in shown], list(QUESTIONS)])[:12],
        "format": FORMAT,
        "scale": SCALE,
        "questions": list(QUESTIONS.items()),
        "samples": [{"id": s.id, "dialogue": s.dialogue} for s in shown],
    }
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    write_atomically(file, environment.get_template("ratings.html.jinja").render(study=study, name=name))


def read_answers(file: Path, db: Path) -> int:
    """Take the answers that the page saved into `db`, all or none, and return how many there are. A file taken twice
    changes nothing, and a later one of the same rater replaces what he changed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file of answers, or one about other samples than those of `db`.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file.name} of answers: take the one that the page saved.")
    try:
        given = _Answers.model_validate(load_document(file))
    except (ValidationError, ValueError) as error:
        raise ValueError(f"{file.name} is not what the ratings page saves: {reason_of(error)}.") from error
    known = arms_and_units(db)
    if foreign := sum(a.sample not in known for a in given.answers):
        raise ValueError(
            f"{file.name} belongs to another questionnaire: {foreign} of its {len(given.answers)} answers are about "
            f"samples that {db.name} does not have."
        )
    save_ratings(db, given.rater, [(a.sample, a.question, a.value, a.at) for a in given.answers])
    return len(given.answers)
