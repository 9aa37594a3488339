"""Perplexity of a model on what the companion is to say.

In: a model and supervised rows. Out: exp of the mean negative log-likelihood over all supervised tokens of all rows,
each token weighing the same (lower is better).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peft import PeftModel
from transformers import PreTrainedModel

from helpers.export.logits import supervised_logits
from helpers.export.parity import log_likelihood
from helpers.supervision import Row


@dataclass(frozen=True)
class Perplexity:
    """`value` over `tokens` supervised tokens."""

    value: float
    tokens: int


def perplexity(model: PreTrainedModel | PeftModel, rows: Sequence[Row], batch_size: int = 4) -> Perplexity:
    """Token-weighted perplexity over the supervised tokens of `rows`.

    Raises:
        ValueError: no row has a supervised token.
    """
    loss, tokens = 0.0, 0
    for logits, targets in supervised_logits(model, rows, batch_size):
        loss -= log_likelihood(logits, targets).sum().item()
        tokens += len(targets)
    if tokens == 0:
        raise ValueError("There is no supervised token in these rows: give conversations with a companion's reply.")
    return Perplexity(math.exp(loss / tokens), tokens)
