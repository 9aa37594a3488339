"""How far two models are apart on the companion's own words.

In: two models with the same vocabulary, and supervised rows. Out: `Parity`: differences of their logits, and how often
both would say the same next token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from helpers.export.logits import supervised_logits
from helpers.supervision import Row

EDGES = torch.logspace(-9, 2, 45)


@dataclass(frozen=True)
class Parity:
    """Absolute logit differences over all words of the vocabulary at all supervised positions.

    Attributes:
        same_greedy: share of positions at which both models' most likely token is the same.
        histogram: counts between neighbouring `EDGES`; what is below the first edge counts in the first bin.
    """

    max_abs: float
    mean_abs: float
    same_greedy: float
    positions: int
    histogram: list[int]

    @property
    def figures(self) -> dict[str, float]:
        """All but the histogram, for the run record."""
        return {name: getattr(self, name) for name in ("max_abs", "mean_abs", "same_greedy", "positions")}

    @property
    def sentence(self) -> str:
        return (
            f"over {self.positions} positions the logits differ by {self.mean_abs:.2g} on average and "
            f"{self.max_abs:.2g} at most; the most likely next token is the same at {self.same_greedy:.2%}"
        )


def compare(
    one: PreTrainedModel | PeftModel, other: PreTrainedModel | PeftModel, rows: Sequence[Row], batch_size: int = 4
) -> Parity:
    """Compare two models on the supervised positions of `rows`; logits are compared in float32.

    Raises:
        ValueError: no row has a supervised token, or the vocabularies differ in size.
    """
    largest, total, same, positions = 0.0, 0.0, 0, 0
    histogram, words = torch.zeros(len(EDGES) - 1, dtype=torch.long), 0
    pairs = zip(supervised_logits(one, rows, batch_size), supervised_logits(other, rows, batch_size), strict=True)
    for (a, _), (b, _) in pairs:
        b, words = b.to(a.device), a.shape[-1]
        if b.shape[-1] != words:
            raise ValueError(f"The models have vocabularies of {words} and {b.shape[-1]} words and cannot be compared.")
        same += (a.argmax(-1) == b.argmax(-1)).sum().item()
        difference = (a - b).abs()
        largest = max(largest, difference.max().item())
        total += difference.sum(dtype=torch.float64).item()
        positions += len(a)
        bins = torch.bucketize(difference.cpu().flatten(), EDGES[1:-1])
        histogram += torch.bincount(bins, minlength=len(histogram))
    if positions == 0:
        raise ValueError("There is no supervised token in these rows: give conversations with a companion's reply.")
    return Parity(largest, total / (positions * words), same / positions, positions, histogram.tolist())
