"""Consistency: whether the reply agrees with what was said in this talk, by her and by him.

In: a reply and the talk before it. Out: how much of its content the talk had, less what sounds like a denial. It is a
stopgap: a contradiction is a matter of sense, and no small model of it runs here.
"""

import re
from collections.abc import Sequence

from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.evaluate.metrics.words import content

_DENIES = re.compile(
    r"[一１1][度回]も|たことな|だっけ|なんてあった|ずっと(?:言|そう)|って言ってた(?:のに|じゃ|よね)|って言ったじゃ|まだ[^。]{0,6}てない|(?:任せ|余裕)"
)
_DENIAL = 0.3


def values(dialogues: Sequence[Dialogue], tools: Tools) -> list[Values]:
    """For each reply but the first: the share of its content words that she or he used before, less a denial."""
    scored: list[Values] = []
    for d in dialogues:
        row: Values = [None]
        for turn in range(1, len(d.replies)):
            said = content(d.texts[turn])
            hers, his = content(" ".join(d.texts[:turn])), content(" ".join(d.user_turns[: turn + 1]))
            shared = (len(said & hers) + len(said & his)) / (2 * max(len(said), 1))
            row.append(max(0.0, shared - _DENIAL * bool(_DENIES.search(d.texts[turn]))))
        scored.append(row)
    return scored


METRIC = Metric(
    "consistency",
    "does not contradict",
    "the reply goes on from what she and he said in this talk",
    "0 to 1; a reply of hers is near 0.2",
    "contradictions in other words, for it compares words and not sense; a change of subject counts as one",
    values,
)
