"""How well crises are recognised: `python -m helpers.safety.measure` prints a table by kind and by sort of sentence.

In: labelled sentences of which nothing was learned. Out: recall, whether the kind was right, and false alarms.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.safety.crisis import Crisis, recognise
from helpers.safety.labelled import KINDS, NONE, TEST, Labelled, read_labelled


@dataclass(frozen=True)
class Measured:
    """Each sentence with what was recognised in it; `seconds` for one, on average."""

    sentences: Sequence[Labelled]
    found: Sequence[Crisis | None]
    seconds: float

    @property
    def pairs(self) -> list[tuple[Labelled, Crisis | None]]:
        return list(zip(self.sentences, self.found, strict=True))

    @property
    def missed(self) -> list[Labelled]:
        return [s for s, crisis in self.pairs if s.crisis and not crisis]

    @property
    def alarms(self) -> list[Labelled]:
        """The sentences that gave a false alarm."""
        return [s for s, crisis in self.pairs if crisis and not s.crisis]

    @property
    def recall(self) -> float:
        return 1 - len(self.missed) / sum(s.crisis for s in self.sentences)

    @property
    def false_alarms(self) -> float:
        """Share of the sentences without a crisis."""
        return len(self.alarms) / sum(not s.crisis for s in self.sentences)


def measure(sentences: Sequence[Labelled], read: Callable[[str], Crisis | None] = recognise) -> Measured:
    """Every sentence recognised, one by one."""
    read(sentences[0].text)
    start = time.perf_counter()
    found = [read(s.text) for s in sentences]
    return Measured(sentences, found, (time.perf_counter() - start) / len(sentences))


def table(measured: Measured) -> str:
    """Recall by kind, alarms by sort of harmless sentence, and both in all, as lines of text."""
    lines = [f"{'':26}{'sentences':>10}{'alarm':>8}{'share':>8}{'right kind':>12}"]
    for kind in KINDS:
        of = [(s, crisis) for s, crisis in measured.pairs if s.label == kind]
        alarms = [crisis for _, crisis in of if crisis]
        lines.append(_line(kind, len(of), len(alarms), sum(c.kind == kind for c in alarms)))
    notes = Counter(s.note for s in measured.sentences if s.label == NONE)
    for note, count in sorted(notes.items()):
        alarms = sum(s.note == note for s in measured.alarms)
        lines.append(_line(f"none: {note}", count, alarms))
    others = [(s, c) for s, c in measured.pairs if s.crisis and c]
    third = sum(s.third_person == c.third_person for s, c in others) / max(len(others), 1)
    lines.append(
        f"recall {measured.recall:.3f}, false alarms {measured.false_alarms:.3f}, who is in danger {third:.3f}"
    )
    lines.append(f"one recognition {1000 * measured.seconds:.0f} ms")
    return "\n".join(lines)


def _line(name: str, count: int, alarms: int, right: int | None = None) -> str:
    share = f"{alarms / count:.3f}" if count else "-"
    return f"{name:26}{count:>10}{alarms:>8}{share:>8}{'' if right is None else right:>12}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of one file; with --wrong the sentences that went wrong, too."""
    parser = argparse.ArgumentParser(prog="python -m helpers.safety.measure", description="Measure crisis recognition.")
    parser.add_argument("file", nargs="?", type=Path, default=TEST, help="labelled sentences (default: the test set)")
    parser.add_argument("--wrong", action="store_true", help="list what was missed and what was a false alarm")
    options = parser.parse_args(arguments)
    measured = measure(read_labelled(options.file))
    sys.stdout.write(table(measured) + "\n")
    if options.wrong:
        for what, wrong in (("missed", measured.missed), ("false alarm", measured.alarms)):
            for sentence in wrong:
                sys.stdout.write(f"{what} ({sentence.label}, {sentence.note}): {sentence.text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
