"""How far models are apart on the companion's own words.

In: what one model says, as a `Reference`, and another's logits on the same rows. Out: `Parity`: differences of the
logits, how much likelier or less likely her words become, and how often both would say the same next token.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from helpers.export.logits import supervised_logits
from helpers.supervision import Row

EDGES = torch.logspace(-9, 2, 45)


@dataclass(frozen=True)
class Reference:
    """A model's logits at the supervised positions of some rows, in float32 on the CPU: [positions, vocabulary]. A
    position of Gemma 3 takes 1 MB."""

    logits: torch.Tensor


@dataclass(frozen=True)
class Parity:
    """Absolute logit differences over all words of the vocabulary at all supervised positions.

    Attributes:
        nll_abs: mean absolute difference of the negative log-likelihood of what she says. The perplexities of the two
            models differ by a factor of exp(nll_abs) at most.
        same_greedy: share of positions at which both models' most likely token is the same.
        histogram: counts between neighbouring `EDGES`; what is below the first edge counts in the first bin.
    """

    max_abs: float
    mean_abs: float
    nll_abs: float
    same_greedy: float
    positions: int
    histogram: list[int]

    @property
    def figures(self) -> dict[str, float]:
        """All but the histogram, for the run record."""
        return {name: value for name, value in vars(self).items() if name != "histogram"}

    @property
    def sentence(self) -> str:
        return (
            f"over {self.positions} positions the logits differ by {self.mean_abs:.2g} on average and "
            f"{self.max_abs:.2g} at most; the most likely next token is the same at {self.same_greedy:.2%}"
        )


def reference(model: PreTrainedModel | PeftModel, rows: Sequence[Row], batch_size: int = 4) -> Reference:
    """What `model` says at the supervised positions of `rows`.

    Raises:
        ValueError: no row has a supervised token.
    """
    parts = [logits.cpu() for logits, _ in supervised_logits(model, rows, batch_size)]
    if not parts:
        raise ValueError("There is no supervised token in these rows: give conversations with a companion's reply.")
    return Reference(torch.cat(parts))


def compare(told: Reference, others: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Parity:
    """Compare a model with the reference.

    Args:
        others: its (logits [n, vocabulary] in float32, targets [n]) on the reference's rows, in any pieces:
            `logits.supervised_logits`, or `llama_cpp.LlamaCpp.logits`.

    Raises:
        ValueError: the vocabularies or the numbers of positions differ.
    """
    largest, total, likelihood, same, at = 0.0, 0.0, 0.0, 0, 0
    words, histogram = told.logits.shape[-1], torch.zeros(len(EDGES) - 1, dtype=torch.long)
    for logits, targets in others:
        a, b, said = told.logits[at : at + len(logits)], logits.cpu(), targets.cpu()
        at += len(logits)
        if b.shape[-1] != words:
            raise ValueError(f"The models have vocabularies of {words} and {b.shape[-1]} words and cannot be compared.")
        if len(a) < len(b):
            break
        same += (a.argmax(-1) == b.argmax(-1)).sum().item()
        likelihood += (log_likelihood(a, said) - log_likelihood(b, said)).abs().sum().item()
        difference = (a - b).abs()
        largest = max(largest, difference.max().item())
        total += difference.sum(dtype=torch.float64).item()
        bins = torch.bucketize(difference.flatten(), EDGES[1:-1])
        histogram += torch.bincount(bins, minlength=len(histogram))
    if at != len(told.logits):
        raise ValueError(
            f"The reference has {len(told.logits)} positions and the other model {at}: give the same rows."
        )
    return Parity(largest, total / (at * words), likelihood / at, same / at, at, histogram.tolist())


def log_likelihood(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Logarithm of each target's probability, [n], from logits [n, vocabulary]."""
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)
