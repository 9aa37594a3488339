"""TRL's fused LM head, on devices without Triton.

In: any TRL trainer, built and run inside `direct_lm_head()`. Out: the same losses and gradients, faster. TRL 1.16
without Triton multiplies every position, masked ones too, with the whole vocabulary (for Gemma 3's 262,144 words two
thirds of the model), and does so again in the backward pass; of this course's tokens three in four are masked.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import torch
from transformers.utils import is_triton_available


class DirectLogProb(torch.autograd.Function):
    """Per-token log-probabilities of `hidden @ weight.T`, with the signature of TRL's `ChunkedLogProbFunction`.

    hidden: [N, H]; weight: [V, H], frozen or not; targets: [N]. Returns log-probabilities [N] and, if in `outputs`,
    entropy, log Σp², mean logit and whether the target is the arg max, each [N], else None. Keeps [N, V] probabilities
    for the backward pass, so that nothing is projected twice.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature, _chunk, softcap=None, scale=1.0, outputs=()):
        if softcap is not None:
            raise NotImplementedError("DirectLogProb does not cover softcapped logits (Gemma 2).")
        factor = scale / temperature
        logits = torch.nn.functional.linear(hidden, weight.to(hidden.dtype), bias).float().mul_(factor)
        log_z = logits.logsumexp(-1)
        target_logit = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        mean_logits = logits.mean(-1) if "mean_logits" in outputs else None
        is_top1 = logits.argmax(-1) == targets if "is_top1" in outputs else None
        expected = None
        if "entropy" in outputs:
            probabilities = torch.exp(logits - log_z.unsqueeze(-1))
            expected = torch.linalg.vecdot(probabilities, logits)
        else:
            probabilities = logits.sub_(log_z.unsqueeze(-1)).exp_()
        entropy = log_z - expected if expected is not None else None
        log_sum_sq = probabilities.square().sum(-1).log() if "log_sum_sq_probs" in outputs else None
        ctx.save_for_backward(hidden, weight, probabilities, targets)
        ctx.factor, ctx.biased = factor, bias is not None
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(x for x in (entropy, log_sum_sq, mean_logits, is_top1) if x is not None))
        return target_logit - log_z, entropy, log_sum_sq, mean_logits, is_top1

    @staticmethod
    def backward(ctx, grad, *_):
        hidden, weight, probabilities, targets = ctx.saved_tensors
        grad = grad.float() * ctx.factor
        d_logits = probabilities.mul_(-grad.unsqueeze(-1))
        d_logits.scatter_add_(-1, targets.unsqueeze(-1), grad.unsqueeze(-1))
        d_logits = d_logits.to(hidden.dtype)
        d_hidden = d_logits @ weight.to(hidden.dtype) if ctx.needs_input_grad[0] else None
        d_weight = (d_logits.t() @ hidden).to(weight.dtype) if ctx.needs_input_grad[1] else None
        d_bias = d_logits.sum(0) if ctx.biased and ctx.needs_input_grad[2] else None
        return d_hidden, d_weight, d_bias, None, None, None, None, None, None


@contextmanager
def direct_lm_head(device: str) -> Iterator[None]:
    """While active, TRL's trainers score only positions with a label, through `DirectLogProb`.

    On a CUDA device with Triton TRL's own kernel is the better one, and nothing is changed.
    """
    if device == "cuda" and is_triton_available():
        with nullcontext():
            yield
        return
    # TRL asks `_use_triton` here only to decide whether masked positions are dropped before the projection.
    with (
        mock.patch("trl.trainer.utils._use_triton", return_value=True),
        mock.patch("trl.trainer.utils._ChunkedLogProbFunction", DirectLogProb),
    ):
        yield
