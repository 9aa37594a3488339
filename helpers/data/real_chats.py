"""Chats that people really had, made fit to learn from: method C.

In: a folder of exports, each with a consent. Out: conversations without personal details, at the level that their
replies' register fits, and everything that was left out with its reason. The quality gate and a reader come after.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from helpers.conversations import Conversation
from helpers.data.anonymise import anonymise_conversation
from helpers.data.consent import FILE, consent_for, with_source
from helpers.data.readers import read_chats
from helpers.data.wrap import wrap_with_persona
from helpers.jsonl import BadLine
from helpers.persona import PersonaCard


@dataclass
class RealChats:
    """What a folder of exports gave; `replaced` counts personal details by entity."""

    conversations: list[Conversation] = field(default_factory=list)
    replaced: Counter = field(default_factory=Counter)
    left_out: list[BadLine] = field(default_factory=list)


def take_in_chats(folder: Path, card: PersonaCard, companion: str | None = None) -> RealChats:
    """Read, anonymise and wrap every export in `folder`. `companion` is the speaker who takes the companion's part.

    Raises:
        FileNotFoundError: there is nothing in `folder`.
        NoConsent: an export without a consent; nothing of the folder is used then.
        UnknownFormat, WhoIsShe: see `readers.read_chats`.
    """
    exports = sorted(f for f in folder.glob("*") if f.is_file() and f.name != FILE and not f.name.startswith("."))
    if not exports:
        raise FileNotFoundError(f"There are no chat exports in {folder}: give a folder that holds some.")
    consents = {export: consent_for(export) for export in exports}
    chats = RealChats()
    for export, consent in consents.items():
        reading = read_chats(export, companion=companion)
        chats.left_out += reading.quarantine
        for number, conversation in enumerate(reading.conversations, start=1):
            safe, counts = anonymise_conversation(conversation, keep={card.name}, known=reading.speakers)
            chats.conversations.append(wrap_with_persona(with_source(safe, consent, number)))
            chats.replaced += counts
    return chats
