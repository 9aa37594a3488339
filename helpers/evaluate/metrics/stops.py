"""Stops: whether she ended the reply by herself within the limit.

In: replies, as the server ended them. Out: 1 or 0.
"""

from collections.abc import Sequence

from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.persona_rules import has_words


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """For each reply 1 if it holds words and the model ended it, else 0."""
    return [[float(r.stopped and has_words(r.text)) for r in d.replies] for d in dialogues]


METRIC = Metric(
    "stops",
    "stops by herself",
    "the model ended the reply before the limit cut it",
    "0 to 1",
    "nothing: the server says so",
    values,
    counted=True,
)
