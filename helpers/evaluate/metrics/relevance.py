"""Relevance: whether the reply answers what was said, and not something else.

In: a reply, what the user said up to there, what the users of the other dialogues said. Out: a rank among them, not a
raw cosine, for those are bunched: the share of the other contexts that are less similar to the reply than its own.
"""

from collections.abc import Sequence

import numpy as np

from helpers.evaluate.metrics.meaning import share, vectors
from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.persona_rules import has_words

SOFT = 0.01  # of cosine: a context so much less similar counts as beaten by three in four


def context_ranks(similarities: np.ndarray, own: Sequence[int]) -> np.ndarray:
    """For each reply (a row of `similarities`, replies × contexts) the share of the other contexts that its own one
    beats, narrow ones in part. `own[i]` is the column of reply i's context. Chance is 0.5."""
    ahead = similarities[np.arange(len(own)), own][:, None] - similarities
    return (share(ahead, SOFT).sum(axis=1) - 0.5) / (similarities.shape[1] - 1)


def ranks(
    replies: Sequence[str], own: Sequence[int], contexts: Sequence[str], said: Sequence[str] | None = None
) -> np.ndarray:
    """`context_ranks` by embeddings; a reply without words is worth 0. `said[i]` is what reply i answers, if that is
    not `contexts[own[i]]` word for word.

    Raises:
        ValueError: fewer than two contexts, so there is nothing to compare with.
    """
    if len(contexts) < 2:
        raise ValueError("Relevance compares a reply with other scenarios: give at least two scenarios.")
    read = vectors(replies)
    similarities = read @ vectors(contexts).T
    if said is not None:
        similarities[np.arange(len(own)), own] = (read * vectors(said)).sum(axis=1)
    found = context_ranks(similarities, own)
    return np.where([has_words(reply) for reply in replies], found, 0.0)


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """For each reply the rank of its own context among those of the other scenarios, as far as these had come."""
    scored: list[Values] = [[None] * len(d.replies) for d in dialogues]
    for turn in range(max((len(d.replies) for d in dialogues), default=0)):
        here = [n for n, d in enumerate(dialogues) if len(d.replies) > turn]
        told = ["\n".join(d.user_turns[: turn + 1]) for d in dialogues]
        scenes = {d.scenario.id: text for d, text in zip(dialogues, told, strict=True)}
        if len(scenes) < 2:
            continue
        place = {name: i for i, name in enumerate(scenes)}
        own = [place[dialogues[n].scenario.id] for n in here]
        found = ranks([dialogues[n].texts[turn] for n in here], own, list(scenes.values()), [told[n] for n in here])
        for n, value in zip(here, found, strict=True):
            scored[n][turn] = float(value)
    return scored


METRIC = Metric(
    "relevance",
    "relevance",
    "the reply is nearer to what was said than to what others said",
    "0 to 1; 0.5 is chance",
    "a reply that takes up a word and misses the point; short replies that would fit anywhere",
    values,
)
