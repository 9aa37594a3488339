"""Sentences of which a person said whether the writer, or somebody close, is in danger now, and in which.

In: `.jsonl` files with `{"text", "label", "note"}` a line. Out: `Labelled`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from helpers.jsonl import BadLine, find_files, read_records
from helpers.settings import ROOT

Kind = Literal["suicide", "self_harm", "abuse", "eating_disorder", "danger_to_others"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NONE = "none"
LABELS = (NONE, *KINDS)
DATA = ROOT / "data" / "safety" / "crisis"
TRAINING, TEST = DATA / "training", DATA / "test.jsonl"
UNSEEN, UNSEEN_SECOND = DATA / "unseen.jsonl", DATA / "unseen_second.jsonl"
_THIRD_PERSON = "third_person"


@dataclass(frozen=True)
class Labelled:
    """`label` is one of `LABELS`; `note` says of what sort the sentence is, such as "slang" or "lyric"."""

    id: str
    text: str
    label: str
    note: str

    @property
    def crisis(self) -> bool:
        return self.label != NONE

    @property
    def third_person(self) -> bool:
        """Whether somebody else than the writer is in danger."""
        return self.note == _THIRD_PERSON


def read_labelled(path: Path) -> list[Labelled]:
    """All sentences of a file or a folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not sound; what is learned from and tested on is mended, not quarantined.
    """
    sentences = []
    for record in read_records(find_files(path, "labelled sentences"), _parse):
        if isinstance(record, BadLine):
            raise ValueError(f"{record.file}, line {record.line}: {record.reason}.")
        sentences.append(record)
    return sentences


def _parse(value: object, name: str) -> Labelled:
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("text", "label", "note")):
        raise ValueError("it is no object with the texts `text`, `label` and `note`")
    if value["label"] not in LABELS:
        raise ValueError(f"there is no label {value['label']!r}; there are {', '.join(LABELS)}")
    if not value["text"].strip():
        raise ValueError("its text is empty")
    return Labelled(name, value["text"], value["label"], value["note"])
