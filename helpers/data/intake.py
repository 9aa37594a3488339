"""The door of the data room: read dialogues, set bad lines aside, and go on only if enough is left.

In: a file or folder of conversations. Out: a `Reading`, and a quarantine file that says of each bad line where it was
and what is wrong with it.
"""

from pathlib import Path

from helpers.conversations import Reading, read_conversations, write_quarantine


class TooFewDialogues(ValueError):
    """Not enough good dialogues are left to train on."""


def take_in(path: Path, minimum: int, quarantine: Path) -> Reading:
    """Read every dialogue at `path`; the bad lines are in the file `quarantine` even if there are too few good ones.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        TooFewDialogues: fewer than `minimum` good ones.
    """
    reading = read_conversations(path)
    write_quarantine(quarantine, reading.quarantine)
    if len(reading.conversations) < minimum:
        raise TooFewDialogues(
            f"{path.name} holds {len(reading.conversations)} good dialogues ({len(reading.quarantine)} bad lines were set aside), "
            f"fewer than the {minimum} that min_dialogues asks for: mend the lines listed in {quarantine.name}, add "
            f"dialogues, or lower min_dialogues."
        )
    return reading
