"""Drift: whether she is at the end of a long talk whom she was at its beginning.

In: dialogues of at least ten replies. Out: 1 less what persona consistency and level fall from the first fifth of the
replies to the last. Repeating herself is no drift: the first replies have nothing to repeat.
"""

from collections.abc import Sequence

import numpy as np

from helpers.evaluate.metrics import level, persona
from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values

LONG = 10


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """A value for the last reply of each long dialogue."""
    long = [d for d in dialogues if len(d.replies) >= LONG]
    held = zip(persona.values(long, tools, without=("no_echo",)), level.values(long, tools), strict=True)
    found = {id(d): _held(np.array(p), np.array(v)) for d, (p, v) in zip(long, held, strict=True)}
    return [d.at(d.last, found.get(id(d))) for d in dialogues]


def _held(consistent: np.ndarray, fitting: np.ndarray) -> float:
    fifth = max(2, len(consistent) // 5)
    own = (consistent + fitting) / 2
    return float(np.clip(1 - (own[:fifth].mean() - own[-fifth:].mean()), 0, 1))


METRIC = Metric(
    "drift",
    "holds to the end",
    "in a long talk the last fifth of the replies keeps the persona and the level as well as the first",
    "0 to 1; 1 without a fall; only talks of ten replies or more",
    "whoever was never in character cannot fall out of it: read it beside persona consistency",
    values,
)
