"""Anonymise a talk: each personal detail gives way to a stand-in that reads naturally.

In: the turns of one conversation. Out: the same turns, in which the same person, number or place has the same stand-in
throughout, and counts by entity. What is found is what `recognizers` finds: a story that gives somebody away stays, so
a person reads before anything is learned from.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from helpers.conversations import Conversation, Message
from helpers.data.people import calls, names_in, parts_of_name, read_alike, repeats
from helpers.data.readings import readings
from helpers.data.recognizers import Finding, find
from helpers.data.stand_ins import StandIns, is_stand_in
from helpers.japanese import narrow, narrow_with_places


@dataclass(frozen=True)
class Anonymised:
    """The turns without what was found, and how many places were replaced, by entity."""

    texts: list[str]
    counts: Counter


def anonymise(
    texts: Sequence[str],
    keep: Iterable[str] = (),
    known: Iterable[str] = (),
    called: Mapping[str, str] | None = None,
) -> Anonymised:
    """Replace personal details in the turns of one conversation.

    Args:
        texts: all turns of one conversation, in order.
        keep: names that stay, such as the persona's own.
        known: names that are known to be somebody's, such as the speakers' in an export. Their parts are known too.
        called: of these names, or others: what its bearer is called instead, such as the persona's own name.
    """
    kept, called = set(keep), called or {}
    others = [name for name in known if name not in called]
    speakers = {part for name in (*others, *called) for part in names_in(name)} - kept
    found = [[f for f in find(text) if text[f.start : f.end] not in kept] for text in texts]
    names = speakers | {
        narrow(text[f.start : f.end])
        for text, findings in zip(texts, found, strict=True)
        for f in findings
        if f.entity == "PERSON"
    }
    parts = {part for name in names for part, kind in parts_of_name(name) if kind}
    heard = frozenset().union(*map(readings, parts)) - frozenset().union(*map(readings, kept))
    stand_ins = StandIns(" ".join((*texts, *others)), kept, called, others)
    counts: Counter = Counter()
    done = []
    for text, findings in zip(texts, found, strict=True):
        read, at = narrow_with_places(text)
        again = (*repeats(read, names), *calls(read, speakers), *read_alike(read, heard))
        places = [*findings, *(Finding("PERSON", at[start], at[end]) for start, end in again)]
        parts, end = [], 0
        for f in sorted(places, key=lambda f: (f.start, -f.end)):
            if f.start < end:
                continue
            parts += [text[end : f.start], stand_ins.of(f.entity, text[f.start : f.end])]
            end = f.end
            counts[f.entity] += 1
        done.append("".join([*parts, text[end:]]))
    return Anonymised(done, counts)


def anonymise_conversation(
    conversation: Conversation,
    keep: Iterable[str] = (),
    known: Iterable[str] = (),
    called: Mapping[str, str] | None = None,
) -> tuple[Conversation, Counter]:
    """`anonymise` for a conversation's turns and for what she is told of the user in it, memories and topics: the
    conversation without what was found, and the counts."""
    metadata = conversation.metadata
    told = [*metadata.memories, *metadata.topics]
    done = anonymise([*(message.content for message in conversation.messages), *told], keep, known, called)
    texts = iter(done.texts)
    messages = [Message(role=m.role, content=next(texts)) for m in conversation.messages]
    memories, topics = ([next(texts) for _ in of] for of in (metadata.memories, metadata.topics))
    metadata = metadata.model_copy(update={"memories": memories, "topics": topics})
    return conversation.model_copy(update={"messages": messages, "metadata": metadata}), done.counts


def second_look(conversation: Conversation, keep: Iterable[str] = ()) -> str:
    """What is `left_over` in a conversation's turns, or in what she is told in it: of the first such detail its kind
    and place, without the words, such as "PERSON (turn 1)". Empty if there is none, as it should be after
    `anonymise_conversation`, and is not always."""
    metadata, turns = conversation.metadata, [message.content for message in conversation.messages]
    found = left_over([*turns, *metadata.memories, *metadata.topics, conversation.system or ""], keep)
    if not found:
        return ""
    place, finding = found[0]
    return f"{finding.entity} ({f'turn {place + 1}' if place < len(turns) else 'what she is told'})"


def left_over(texts: Sequence[str], keep: Iterable[str] = ()) -> list[tuple[int, Finding]]:
    """What is found in the turns although it is neither in `keep` nor a stand-in, each with its turn (from 0): nothing
    after `anonymise`. Somebody whose real name is one of the stand-ins' cannot be told from it."""
    kept = set(keep)
    return [
        (turn, finding)
        for turn, text in enumerate(texts)
        for finding in find(text)
        if (words := text[finding.start : finding.end]) not in kept and not is_stand_in(finding.entity, words, kept)
    ]
