"""How much an anonymiser finds, and how much it takes for a detail that is none.

In: messages in which a person marked every personal detail, as `{三浦|PERSON}さん`. Out: precision, recall
and how much else was replaced, by entity.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.data.recognizers import ENTITIES, Finding
from helpers.jsonl import BadLine, find_files, read_records

_MARK = re.compile(r"\{([^{}|]+)\|([A-Z_]+)\}")


@dataclass(frozen=True)
class Marked:
    """A message, and the places in it that must go."""

    id: str
    text: str
    marks: tuple[Finding, ...]


@dataclass(frozen=True)
class Score:
    """Counts of one entity. A detail is found if no letter or digit of it is left, whatever it was taken for; a finding
    is right if most of it was marked.

    So a right finding may take words beside the detail with it, and precision does not see it. `outside` does: of the
    letters and digits that findings replace, it is the share that no mark covers, in right findings (荷物は of
    荷物は港区…) and in wrong ones alike.
    """

    marked: int
    found: int
    findings: int
    right: int
    replaced: int  # letters and digits
    unmarked: int  # of those replaced

    @property
    def recall(self) -> float:
        return self.found / self.marked if self.marked else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.findings if self.findings else 1.0

    @property
    def outside(self) -> float:
        return self.unmarked / self.replaced if self.replaced else 0.0


def read_marked(path: Path) -> list[Marked]:
    """All messages of a `.jsonl` file or a folder of them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not sound; a test set is mended, not quarantined.
    """
    messages = []
    for record in read_records(find_files(path, "marked messages"), _parse):
        if isinstance(record, BadLine):
            raise ValueError(f"{record.file}, line {record.line}: {record.reason}.")
        messages.append(record)
    return messages


def _parse(value: object, name: str) -> Marked:
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise ValueError("it has no `text`")
    text, marks, end = "", [], 0
    for mark in _MARK.finditer(value["text"]):
        text += value["text"][end : mark.start()]
        if mark[2] not in ENTITIES:
            raise ValueError(f"there is no entity {mark[2]}; there are {', '.join(ENTITIES)}")
        marks.append(Finding(mark[2], len(text), len(text) + len(mark[1])))
        text, end = text + mark[1], mark.end()
    text += value["text"][end:]
    if set("{}|") & set(text):
        raise ValueError("a mark is not whole: it is written {words|ENTITY}")
    return Marked(value.get("id", name), text, tuple(marks))


def score(messages: Sequence[Marked], find: Callable[[str], Iterable[Finding]]) -> dict[str, Score]:
    """Scores by entity, in the order of `ENTITIES`, and for all of them together as "all"."""
    counts: Counter[tuple[str, str]] = Counter()
    for message in messages:
        findings = list(find(message.text))
        hidden = {i for f in findings for i in range(f.start, f.end)}
        marked = {i for m in message.marks for i in range(m.start, m.end)}
        for mark in message.marks:
            left = [i for i in range(mark.start, mark.end) if i not in hidden and message.text[i].isalnum()]
            counts[mark.entity, "marked"] += 1
            counts[mark.entity, "found"] += not left
        for finding in findings:
            inside = sum(i in marked for i in range(finding.start, finding.end))
            letters = [i for i in range(finding.start, finding.end) if message.text[i].isalnum()]
            counts[finding.entity, "findings"] += 1
            counts[finding.entity, "right"] += 2 * inside > finding.end - finding.start
            counts[finding.entity, "replaced"] += len(letters)
            counts[finding.entity, "unmarked"] += sum(i not in marked for i in letters)
    keys = ("marked", "found", "findings", "right", "replaced", "unmarked")
    scores = {entity: Score(*(counts[entity, key] for key in keys)) for entity in ENTITIES}
    return scores | {"all": Score(*(sum(counts[entity, key] for entity in ENTITIES) for key in keys))}
