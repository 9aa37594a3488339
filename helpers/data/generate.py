"""Dialogues written by a language model: method B, and which of them are kept.

In: orders, and what an endpoint answered to them (`batch`). Out: the dialogues that the gate lets through, and of those
the ones that a judge finds good enough; and for each of the others the reasons.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.conversations import Conversation
from helpers.data.batch import Answer
from helpers.data.duplicates import repeats
from helpers.data.moderation import moderate
from helpers.data.orders import Order
from helpers.data.quality import check
from helpers.data.reserved import NOTHING, Reserved
from helpers.files import write_atomically
from helpers.persona import PersonaCard
from helpers.safety.crisis import recognise


@dataclass
class Gated:
    """What the gate let through, and for each order that it did not, the reasons."""

    accepted: list[Conversation] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)

    def by_reason(self) -> Counter:
        """How many orders each reason refused; one order can count under several."""
        return Counter(reason for reasons in self.refused.values() for reason in reasons)


def gate(
    orders: Sequence[Order],
    answers: Mapping[str, Answer],
    card: PersonaCard,
    known: Sequence[Conversation] = (),
    reserved: Reserved = NOTHING,
) -> Gated:
    """Read the answers, and keep the dialogues that are sound, pass the quality gate and moderation, share nothing with
    what is `reserved`, and are like no other: neither like one of `known` nor like one accepted before."""
    gated, sound = Gated(), {}
    for order in orders:
        if order.id not in answers:
            continue
        try:
            conversation = order.conversation(answers[order.id].text)
        except ValueError as error:
            reason = "not the JSON asked for" if "JSON" in str(error) else "not a sound dialogue"
            gated.refused[order.id] = [reason]
            continue
        reasons = [*check(conversation, card), *reserved.against(conversation)] or moderate(conversation, recognise)
        if reasons:
            gated.refused[order.id] = [reason.rule for reason in reasons]
        else:
            sound[order.id] = conversation
    again = repeats(list(sound.values()), known)
    gated.refused |= {name: ["near duplicate"] for name in again}
    gated.accepted = [conversation for conversation in sound.values() if conversation.id not in again]
    return gated


def write_refused(path: Path, gated: Gated, answers: Mapping[str, Answer]) -> None:
    """Write each order that was refused as a JSON line: its id, the reasons, and the text of the answer."""
    lines = (
        json.dumps({"order": name, "reasons": reasons, "text": answers[name].text}, ensure_ascii=False)
        for name, reasons in gated.refused.items()
    )
    write_atomically(path, "".join(f"{line}\n" for line in lines))
