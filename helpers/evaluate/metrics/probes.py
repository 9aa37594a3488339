"""Probes: whether she knows who she is.

In: her answers to the card's questions about herself, each asked at two levels. Out: 1 for an answer that holds what
the card expects, if the same question was answered rightly at the other level too; 0.5 if it was not.
"""

from collections.abc import Sequence

from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.persona_rules import answers_probe


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """A value for each answer; the talks of one question are those that begin with it."""
    expect = {probe.question: probe.expect for probe in tools.card.probes}
    right = [[answers_probe(t, expect[q]) for t, q in zip(d.texts, d.user_turns, strict=True)] for d in dialogues]
    asked: dict[str, list[bool]] = {}
    for d, found in zip(dialogues, right, strict=True):
        for question, ok in zip(d.user_turns, found, strict=True):
            asked.setdefault(question, []).append(ok)
    return [
        [(1.0 if all(asked[q]) else 0.5) if ok else 0.0 for q, ok in zip(d.user_turns, found, strict=True)]
        for d, found in zip(dialogues, right, strict=True)
    ]


METRIC = Metric(
    "probes",
    "knows herself",
    "she answers what the card says when she is asked who she is, at every level",
    "0 to 1",
    "an answer that names the right word and denies it; facts for which the card has no question",
    values,
)
