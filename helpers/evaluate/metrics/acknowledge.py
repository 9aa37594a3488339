"""Acknowledges: whether she takes up the feeling before, or instead of, giving advice.

In: the reply to a last turn that calls for comfort or shared anger. Out: how much it is like replies that people
preferred to advice, procedure and sermons.
"""

from collections.abc import Sequence

from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.persona_rules import has_words

CALLS = ("comfort", "anger")


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """A value for the last reply of each dialogue that calls for it."""
    return [
        d.at(d.last, float(tools.readers.feeling(d.texts[-1:])[0]) if has_words(d.texts[-1]) else 0.0)
        if d.scenario.calls_for in CALLS
        else d.at(d.last, None)
        for d in dialogues
    ]


METRIC = Metric(
    "acknowledge",
    "takes up the feeling",
    "to grief, fear or anger she answers with the feeling first, advice later or never",
    "0 to 1; 0.5 says nothing",
    "it hears the manner of advice, procedure and sermons, not whether the feeling that is taken up is his",
    values,
)
