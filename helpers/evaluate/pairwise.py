"""Pairs as the judge saw them, summed up: who wins, how often the order of showing decides, and whether length does.

In: preferences. Out: one `Tally` an axis. A judge that likes long answers shows it in two places: the longer talk wins
too often, and the wins shrink when only pairs of like length are counted.
Source: Dubois et al., Length-controlled AlpacaEval, COLM 2024, on the bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from helpers.evaluate.bootstrap import Interval, Units, interval
from helpers.evaluate.judge import Preference
from helpers.share import Share

LIKE_LENGTH = 0.8  # the shorter of two is at least this share of the longer
_WORTH = {"a": 1.0, "tie": 0.5, "b": 0.0}


@dataclass(frozen=True)
class Tally:
    """One axis over all pairs.

    Attributes:
        wins: the share that a wins, a tie counting half, with its 95 % interval over pairs.
        flips: in how many pairs the verdict changed with the order.
        longer: of the decided pairs of unlike length, in how many the longer won; None if there are none.
        matched: `wins` over the pairs of like length; None if there are none.
    """

    axis: str
    wins: Interval
    flips: Share
    longer: Share | None
    matched: Interval | None


def of_like_length(preference: Preference) -> bool:
    """Whether what she says in both talks is about as long."""
    shorter, longer = sorted((preference.a.length, preference.b.length))
    return shorter >= LIKE_LENGTH * longer


def tally(preferences: Sequence[Preference], draws: int, seed: int) -> list[Tally]:
    """One a axis, in the order in which they come. The same pair must not be among them twice."""
    tallies = []
    for axis in dict.fromkeys(p.axis for p in preferences):
        mine = [p for p in preferences if p.axis == axis]
        decided = [p for p in mine if p.winner != "tie" and not of_like_length(p)]
        longer = sum((p.a.length > p.b.length) == (p.winner == "a") for p in decided)
        matched = [p for p in mine if of_like_length(p)]
        tallies.append(
            Tally(
                axis,
                interval(_worth(mine), draws, seed),
                Share(sum(p.flipped for p in mine), len(mine)),
                Share(longer, len(decided)) if decided else None,
                interval(_worth(matched), draws, seed) if matched else None,
            )
        )
    return tallies


def _worth(preferences: Sequence[Preference]) -> Units:
    return {f"{p.a.id} {p.b.id}": {0: [_WORTH[p.winner]]} for p in preferences}


COLUMNS = ["axis", "wins (a tie is half)", "flipped by the order", "the longer won", "wins at like length"]


def table(tallies: Sequence[Tally]) -> list[list[str]]:
    """One row an axis; "–" where there is no such pair."""
    return [
        [
            t.axis,
            str(t.wins),
            f"{t.flips:.0%}",
            f"{t.longer:.0%}" if t.longer else "–",
            f"{t.matched} ({t.matched.n})" if t.matched else "–",
        ]
        for t in tallies
    ]
