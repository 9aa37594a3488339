"""How well crises are recognised: `python -m helpers.safety.measure` prints a table by kind and by sort of sentence,
and with --long one by the length of a message.

In: labelled sentences of which nothing was learned. Out: recall, whether the kind was right, and false alarms.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.safety.crisis import Crisis, recognise
from helpers.safety.labelled import KINDS, NONE, TEST, Labelled, read_labelled
from helpers.safety.training import ordinary_turns
from helpers.spelling import plain, sentences

LENGTHS = (1, 10, 20, 40)  # of a message, in sentences
MESSAGES = 50  # of each length, without a crisis and with one


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


@dataclass(frozen=True)
class Long:
    """Of messages of `length` sentences: the share of the harmless ones that gave an alarm, and of those with one
    sentence of a crisis among the others the share that did."""

    length: int
    false_alarms: float
    recall: float


def measure_long(
    turns: Sequence[str],
    crises: Sequence[str],
    length: int,
    messages: int,
    read: Callable[[str], Crisis | None] = recognise,
) -> Long:
    """Ordinary `turns` of which nothing was learned, joined to messages sentence by sentence, and `crises` in them."""
    draw = random.Random(length)
    harmless = [sentence for turn in turns for sentence in sentences(plain(turn))]
    alarms = caught = 0
    for _ in range(messages):
        message = draw.sample(harmless, length)
        alarms += read(_joined(message)) is not None
        message[draw.randrange(length)] = plain(draw.choice(crises))
        caught += read(_joined(message)) is not None
    return Long(length, alarms / messages, caught / messages)


def _joined(said: Sequence[str]) -> str:
    return "".join(one if one.endswith(("。", "!", "?")) else f"{one}。" for one in said)


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
    """Print the table of one file, with --wrong the sentences that went wrong, too; with --long that by length."""
    parser = argparse.ArgumentParser(prog="python -m helpers.safety.measure", description="Measure crisis recognition.")
    parser.add_argument("file", nargs="?", type=Path, default=TEST, help="labelled sentences (default: the test set)")
    parser.add_argument("--wrong", action="store_true", help="list what was missed and what was a false alarm")
    parser.add_argument("--long", action="store_true", help="only: by length of message, a crisis among ordinary turns")
    options = parser.parse_args(arguments)
    if options.long:
        turns, crises = ordinary_turns()[1], [s.text for s in read_labelled(options.file) if s.crisis]
        for length in LENGTHS:
            found = measure_long(turns, crises, length, MESSAGES)
            sys.stdout.write(
                f"{length:>3} sentences: recall {found.recall:.2f}, false alarms {found.false_alarms:.2f}\n"
            )
        return 0
    measured = measure(read_labelled(options.file))
    sys.stdout.write(table(measured) + "\n")
    if options.wrong:
        for what, wrong in (("missed", measured.missed), ("false alarm", measured.alarms)):
            for sentence in wrong:
                sys.stdout.write(f"{what} ({sentence.label}, {sentence.note}): {sentence.text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
