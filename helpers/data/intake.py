"""The door of the data room: read dialogues, set bad ones aside, and go on only if enough is left.

In: a file or folder of conversations. Out: a `Reading`, and a quarantine file that says of each bad line where it was
and what is wrong with it.
"""

from pathlib import Path

from helpers.conversations import Reading, read_conversations
from helpers.jsonl import BadLine, write_quarantine
from helpers.persona import PersonaCard, check_emotions


class TooFewDialogues(ValueError):
    """Not enough good dialogues are left to train on."""


def take_in(path: Path, card: PersonaCard, minimum: int, quarantine: Path) -> Reading:
    """Read every dialogue at `path`; the bad ones are in the file `quarantine` even if there are too few good ones.

    A dialogue in a mood that the card does not have is set aside too, with line 0, for by then only its id is known.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        TooFewDialogues: fewer than `minimum` good ones.
    """
    reading = read_conversations(path)
    good = []
    for conversation in reading.conversations:
        try:
            check_emotions(card, conversation.metadata.emotions)
            good.append(conversation)
        except ValueError as error:
            text = conversation.model_dump_json(exclude_none=True)
            reading.quarantine.append(BadLine(path.name, 0, f"{conversation.id}: {error}", text))
    reading.conversations = good
    write_quarantine(quarantine, reading.quarantine)
    minimum = max(1, minimum)
    if len(good) < minimum:
        raise TooFewDialogues(
            f"{path.name} holds {len(good)} good dialogues ({len(reading.quarantine)} bad lines were set aside), "
            f"fewer than the {minimum} that min_dialogues asks for: mend the lines listed in {quarantine.name}, "
            f"add dialogues, or lower min_dialogues."
        )
    return reading
