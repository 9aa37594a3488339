"""A share of things that were right, with its 95 % interval by Wilson (J. Amer. Statist. Assoc. 22, 1927).

In: how many of how many. Out: a `Share`; as text "0.76 [0.71, 0.80]", or with a format of its own for each figure:
`f"{share:.0%}"` gives "76% [71%, 80%]".
"""

from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Share:
    """`right` of `n`; without any (`n` 0) it has neither a value nor an interval."""

    right: int
    n: int

    @property
    def value(self) -> float:
        """0 to 1."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Its ends, 0 to 1."""
        found = binomtest(self.right, self.n).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)

    def __format__(self, form: str) -> str:
        value, low, high = (format(number, form or ".2f") for number in (self.value, *self.interval))
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)
