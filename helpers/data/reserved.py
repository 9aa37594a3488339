"""What nothing may be learned from: the words of held-out dialogues, and of the scenarios that she is evaluated on.

In: held-out dialogues and the scenarios' turns. Out: `Reserved`, which says of any other dialogue what it shares with
them. Compared without spaces, punctuation, width and case.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from helpers.conversations import Conversation
from helpers.data.duplicates import runs
from helpers.data.quality import Reason
from helpers.data.split import first_turn

PASSAGE = 12  # letters that a dialogue and what is reserved must not share


@dataclass(frozen=True)
class Reserved:
    """First turns as `first_turn` spells them, passages of `PASSAGE` letters of held-out dialogues, and those of
    scenarios; of a scenario's shorter turn the whole, which nobody must say by itself."""

    openings: frozenset[str] = frozenset()
    held_out: frozenset[str] = frozenset()
    scripted: frozenset[str] = frozenset()

    def against(self, conversation: Conversation) -> list[Reason]:
        """What of a dialogue is reserved: each rule once."""
        said = {passage for message in conversation.messages for passage in runs(message.content, PASSAGE)}
        found = []
        if first_turn(conversation) in self.openings:
            found.append(Reason("reserved", "begins as a dialogue of validation or test does"))
        if shared := said & self.held_out:
            found.append(Reason("held_out", f"says {min(shared)!r}, as a dialogue of validation or test does"))
        if shared := said & self.scripted:
            found.append(Reason("scenario", f"says {min(shared)!r}, as a scenario does that she is evaluated on"))
        return found


NOTHING = Reserved()


def reserve(held_out: Iterable[Conversation], scripted: Iterable[str] = ()) -> Reserved:
    """Reserve the dialogues `held_out` and the turns `scripted`."""
    held_out = list(held_out)
    turns = (message.content for conversation in held_out for message in conversation.messages)
    return Reserved(
        frozenset(map(first_turn, held_out)),
        frozenset(passage for turn in turns for passage in runs(turn, PASSAGE) if len(passage) == PASSAGE),
        frozenset(passage for turn in scripted for passage in runs(turn, PASSAGE) if passage),
    )
