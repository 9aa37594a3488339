"""Chats that people really had, made fit to learn from: method C.

In: a folder of exports, each with a consent. Out: conversations without personal details, at the level that their
replies' register fits, and everything that was left out with its reason. The quality gate and a reader come after.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from helpers.conversations import Conversation, Reading
from helpers.data.anonymise import anonymise, anonymise_conversation, second_look
from helpers.data.consent import FILE, Consent, consent_for, with_source
from helpers.data.readers import WhoIsShe, read_chats
from helpers.data.wrap import wrap_with_persona
from helpers.files import write_atomically
from helpers.persona import PersonaCard

MOST_CHARS = 10_000  # of a turn: Sudachi reads at most 49,149 bytes at once
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True)
class LeftOut:
    """What of an export is not learned from, without personal details.

    `source` is the consent's id, which `forget` looks for; `line` counts from 1, and is 0 for a whole conversation or
    file, of which `text` tells no words.
    """

    source: str
    line: int
    reason: str
    text: str


@dataclass
class RealChats:
    """What a folder of exports gave; `replaced` counts personal details by entity."""

    conversations: list[Conversation] = field(default_factory=list)
    replaced: Counter = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def sources(self) -> list[str]:
        """The consents that something rests on, of what was taken in and of what was left out."""
        return sorted({c.metadata.source for c in self.conversations} | {one.source for one in self.left_out})

    def by_reason(self) -> list[tuple[str, int, str]]:
        """(reason, how often, an example) for what was left out, the commonest first."""
        example = {one.reason: one.text for one in reversed(self.left_out)}
        counts = Counter(one.reason for one in self.left_out)
        return [(reason, count, example[reason]) for reason, count in counts.most_common()]


def take_in_chats(folder: Path, card: PersonaCard, companion: str | None = None) -> RealChats:
    """Read, anonymise and wrap every export in `folder`. `companion` is the speaker who takes the companion's part: she
    is called by the card's name. A system prompt that an export brings is dropped: it is another's.

    An export that cannot be read is left out, unless no other can be.

    Raises:
        FileNotFoundError: there is nothing in `folder`.
        NoConsent: an export without a consent; nothing of the folder is used then.
        UnknownFormat, WhoIsShe, ValueError: no export could be read; see `readers.read_chats`.
    """
    exports = sorted(f for f in folder.glob("*") if f.is_file() and f.name != FILE and not f.name.startswith("."))
    if not exports:
        raise FileNotFoundError(f"There are no chat exports in {folder}: give a folder that holds some.")
    consents = {export: consent_for(export) for export in exports}
    chats, errors = RealChats(), []
    for export, consent in consents.items():
        try:
            reading = read_chats(export, consent.format, companion)
        except ValueError as error:
            errors.append(error)
            reason = "nobody in it has the companion's name" if isinstance(error, WhoIsShe) else str(error)
            reason = _anonymous_reason(reason.replace(export.name, "the file"), {"keep": {card.name}})
            chats.left_out.append(LeftOut(consent.id, 0, reason, ""))
        else:
            _take_in(chats, export, reading, consent, card, companion)
    if len(errors) == len(exports):
        raise errors[0]
    return chats


def write_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    """Write what was left out as JSON Lines."""
    write_atomically(path, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in left_out))


def _take_in(
    chats: RealChats, export: Path, reading: Reading, consent: Consent, card: PersonaCard, companion: str | None
) -> None:
    names = {"keep": {card.name}, "known": reading.speakers, "called": {companion: card.name} if companion else None}
    for bad in reading.quarantine:
        reason = _anonymous_reason(bad.reason.replace(export.name, "the file"), names)
        text = _shown(bad.text)[:MOST_CHARS]
        text = anonymise([text], **names).texts[0] if text.strip() else ""
        chats.left_out.append(LeftOut(consent.id, bad.line, reason, text))
    for number, conversation in enumerate(reading.conversations, start=1):
        try:
            safe, counts = _safe(conversation, card, names)
        except ValueError as error:
            chats.left_out.append(LeftOut(consent.id, 0, str(error), f"(conversation {number})"))
        else:
            chats.conversations.append(wrap_with_persona(with_source(safe, consent, number)))
            chats.replaced += counts


def _anonymous_reason(reason: str, names: dict) -> str:
    """One that is not in English alone quotes what was said."""
    return reason if reason.isascii() else anonymise([reason], **names).texts[0]


def _safe(conversation: Conversation, card: PersonaCard, names: dict) -> tuple[Conversation, Counter]:
    """The conversation without personal details and without a system prompt, and what was replaced.

    Raises:
        ValueError: it cannot be learned from; the sentence names no detail.
    """
    if not set(conversation.metadata.emotions) <= set(card.emotions):
        raise ValueError("it has a mood that the card does not have")
    if any(len(text) > MOST_CHARS for text in _texts(conversation)):
        raise ValueError(f"a turn has more than {MOST_CHARS:,} characters")
    safe, counts = anonymise_conversation(conversation.model_copy(update={"system": None}), **names)
    if found := second_look(safe, keep={card.name}):
        raise ValueError(f"the anonymiser still finds a {found}")
    return safe, counts


def _texts(conversation: Conversation) -> list[str]:
    metadata = conversation.metadata
    return [*(message.content for message in conversation.messages), *metadata.memories, *metadata.topics]


def _shown(line: str) -> str:
    """A line of JSON as a reader, and the anonymiser, can read it."""
    unescaped = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), line)
    return unescaped.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
