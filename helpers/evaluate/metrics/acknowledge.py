"""Acknowledges: whether she takes up the feeling before, or instead of, giving advice.

In: the reply to a last turn that calls for comfort or shared anger. Out: how much it is like replies that people
preferred to advice, procedure and sermons, as the mean over what he has read at the end of each sentence: what comes
first weighs in every one of them.
"""

import re
from collections.abc import Sequence

from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.persona_rules import has_words

CALLS = ("comfort", "anger")
_SENTENCE = re.compile(r"[^。！？!?…\n]+[。！？!?…\n]*")


def beginnings(reply: str) -> list[str]:
    """The reply up to the end of its first sentence, of its second, and so on."""
    return [reply[: found.end()] for found in _SENTENCE.finditer(reply)]


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """A value for the last reply of each dialogue that calls for it."""
    return [
        d.at(d.last, float(tools.readers.feeling(beginnings(d.texts[-1])).mean()) if has_words(d.texts[-1]) else 0.0)
        if d.scenario.calls_for in CALLS
        else d.at(d.last, None)
        for d in dialogues
    ]


METRIC = Metric(
    "acknowledge",
    "takes up the feeling",
    "to grief, fear or anger she answers with the feeling first, advice later or never",
    "0 to 1; 0.5 says nothing",
    "it hears the manner of advice, procedure and sermons, not whether the feeling that is taken up is his; a greeting "
    "passes for a mildly warm beginning",
    values,
)
