"""Memory: whether what she was told is used, kept up to date, and not made up.

In: the replies, what she remembers, what the user said. Out: where a memory is wanted, whether a reply holds its words
(the scenario's cues, else its content words) that the user did not give himself; where he corrected it, whether the
last reply holds the new words and not the old; where he asks for what she cannot know, whether she says so. Where no
words are named, half goes by the meaning of the replies: nearness to the memory, its correction, or examples.
"""

from collections.abc import Sequence

import numpy as np

from helpers.evaluate.metrics.meaning import nearer, share, vectors
from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.evaluate.metrics.relevance import context_ranks
from helpers.evaluate.metrics.said import admits, asserts
from helpers.evaluate.metrics.words import content
from helpers.evaluate.scenarios import Scenario
from helpers.persona_rules import has_words

UNKNOWN = ("memory_absent", "false_memory")
_OTHERS = 40  # of her replies, with which nearness to a memory is compared
_KNOWS_NOT = (
    "それはまだ聞いていないよ",
    "聞いた覚えがないんだ、ごめん",
    "知らないから、教えてほしい",
    "そんな話はしていないと思うよ",
    "思い出せない、わからない",
    "間違えたらいけないから、もう一度教えて",
)
_CLAIMS = (
    "もちろん覚えてるよ",
    "前に話してくれたよね",
    "忘れるわけないじゃん",
    "確か、そう言っていたよ",
    "うん、知ってるよ。〜でしょ",
    "あのとき楽しそうに言ってたもん",
)


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """A value for the last reply of each dialogue in which a memory counts."""
    return [d.at(d.last, _value(d, tools)) for d in dialogues]


def applies(scenario: Scenario) -> bool:
    """Whether the last reply has a value for sure. Where cues are named it has none if the user says them himself."""
    wanted = scenario.kind in ("memory_used", "memory_corrected") and not scenario.memory_cues
    return wanted or scenario.kind in UNKNOWN


def _value(d: Dialogue, tools: Tools) -> float | None:
    scenario = d.scenario
    if scenario.kind in UNKNOWN:
        leaning = nearer(d.texts[-1], _KNOWS_NOT, _CLAIMS) - 0.5
        return float(np.clip(admits(d.texts[-1]) + leaning, 0, 1))
    if scenario.kind == "memory_corrected" and not scenario.memory_cues:
        return _corrected(d)
    if scenario.memory_cues or scenario.kind == "memory_used":
        return _used(d, tools)
    return None


def _used(d: Dialogue, tools: Tools) -> float | None:
    given = " ".join(d.user_turns)
    if d.scenario.memory_cues:
        cues = [cue for cue in d.scenario.memory_cues if cue not in given]
        return float(any(cue in text for text in d.texts for cue in cues)) if cues else None
    replies = [text for text in d.texts if has_words(text)]
    if not replies:
        return 0.0
    memories = " ".join(d.scenario.memories)
    words = 1 - 0.5 ** len((content(memories) - content(given)) & content(" ".join(replies)))
    (memory,) = vectors([memories])
    others = vectors(tools.readers.unseen[:_OTHERS]) @ memory
    near = np.append((vectors(replies) @ memory).max(), others)
    return float(words + context_ranks(near[None], [0])[0]) / 2


def _corrected(d: Dialogue) -> float:
    reply = d.texts[-1]
    if facts := d.scenario.facts:
        return (1 + asserts(reply, facts.right) - asserts(reply, facts.wrong)) / 2
    if not has_words(reply):
        return 0.0
    memories = " ".join(d.scenario.memories)
    old, said = content(memories), content(reply)
    new = content(" ".join(d.user_turns)) - old
    words = (1 + min(len(said & new), 2) / 2 - min(len(said & old), 2) / 2) / 2
    read, before, after = vectors([reply, memories, "\n".join(d.user_turns[:-1] or d.user_turns)])
    return float(words + share(read @ after - read @ before)) / 2


METRIC = Metric(
    "memory",
    "memory",
    "what he told her is used without his repeating it, a correction stands, and what he never told her is not made up",
    "0 to 1; 0 for a memory that nobody mentions",
    "other words for the same (mother for mum) where a scenario names none; a memory that is named and got wrong",
    values,
)
