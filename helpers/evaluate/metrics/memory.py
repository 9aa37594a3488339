"""Memory: whether what she was told is used, kept up to date, and not made up.

In: the replies, what she remembers, what the user said. Out: where a memory is wanted, whether a reply holds its words
(the scenario's cues, else its content words) that the user did not give himself; where he corrected it, whether the
last reply holds the new words and not the old; where he asks for what she cannot know, whether she says so.
"""

from collections.abc import Sequence

from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.evaluate.metrics.said import admits, asserts
from helpers.evaluate.metrics.words import content

UNKNOWN = ("memory_absent", "false_memory")


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """A value for the last reply of each dialogue in which a memory counts."""
    return [d.at(d.last, _value(d)) for d in dialogues]


def _value(d: Dialogue) -> float | None:
    scenario = d.scenario
    if scenario.kind in UNKNOWN:
        return admits(d.texts[-1])
    if scenario.kind == "memory_corrected" and not scenario.memory_cues:
        return _corrected(d)
    if scenario.memory_cues or scenario.kind == "memory_used":
        return _used(d)
    return None


def _used(d: Dialogue) -> float | None:
    given = " ".join(d.user_turns)
    if d.scenario.memory_cues:
        cues = [cue for cue in d.scenario.memory_cues if cue not in given]
        return float(any(cue in text for text in d.texts for cue in cues)) if cues else None
    wanted = content(" ".join(d.scenario.memories)) - content(given)
    return 1 - 0.5 ** len(wanted & content(" ".join(d.texts)))


def _corrected(d: Dialogue) -> float:
    reply = d.texts[-1]
    if facts := d.scenario.facts:
        return (1 + asserts(reply, facts.right) - asserts(reply, facts.wrong)) / 2
    old, said = content(" ".join(d.scenario.memories)), content(reply)
    new = content(" ".join(d.user_turns)) - old
    return (1 + min(len(said & new), 2) / 2 - min(len(said & old), 2) / 2) / 2


METRIC = Metric(
    "memory",
    "memory",
    "what he told her is used without his repeating it, a correction stands, and what he never told her is not made up",
    "0 to 1; 0 for a memory that nobody mentions",
    "other words for the same (mother for mum) where a scenario names none; a memory that is named and got wrong",
    values,
)
