"""Dialogues written by a language model: method B, and which of them are kept.

In: orders, and what an endpoint answered to them (`batch`). Out: the dialogues that the gate lets through, and of those
the ones that a judge finds good enough; and for each of the others the reasons.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from helpers.conversations import Conversation
from helpers.data.batch import Answer
from helpers.data.duplicates import near_duplicates
from helpers.data.orders import Order
from helpers.data.quality import check
from helpers.persona import PersonaCard


@dataclass
class Gated:
    """What the gate let through, and for each order that it did not, the reasons."""

    accepted: list[Conversation] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)

    def by_reason(self) -> Counter:
        """How many orders each reason refused; one order can count under several."""
        return Counter(reason for reasons in self.refused.values() for reason in reasons)


def gate(
    orders: Sequence[Order], answers: dict[str, Answer], card: PersonaCard, known: Sequence[Conversation] = ()
) -> Gated:
    """Read the answers, and keep the dialogues that are sound, pass the quality gate, and are like no other: neither
    like one of `known` nor like one accepted before."""
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
        if reasons := [reason.rule for reason in check(conversation, card)]:
            gated.refused[order.id] = reasons
        else:
            sound[order.id] = conversation
    said = {c.id: "\n".join(m.content for m in c.messages) for c in (*known, *sound.values())}
    order_of = {name: place for place, name in enumerate(said)}
    for pair in sorted(near_duplicates(said, threshold=0.5), key=lambda pair: order_of[pair.b]):
        if pair.a not in gated.refused and sound.pop(pair.b, None):
            gated.refused[pair.b] = ["near duplicate"]
    gated.accepted = list(sound.values())
    return gated
