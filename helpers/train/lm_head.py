"""TRL's fused LM head, on devices without Triton.

In: any TRL trainer, built and run inside `direct_lm_head()`. Out: the same losses and gradients, faster. TRL 1.16
without Triton multiplies every position, masked ones too, with the whole vocabulary (for Gemma 3's 262,144 words two
thirds of the model), and does so again in the backward pass; of this course's tokens three in four are masked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from transformers.utils import is_triton_available
from trl.kernels import ChunkedLogProbFunction

TOKENS_AT_ONCE = 128


class DirectLogProb(torch.autograd.Function):
    """Per-token log-probabilities of `hidden @ weight.T`, with the signature of TRL's `ChunkedLogProbFunction`.

    hidden: [N, H]; weight: [V, H], frozen; targets: [N]. Returns log-probabilities [N] and, if in `outputs`, entropy,
    log Σp², mean logit and whether the target is the arg max, each [N], else None. The gradient of log p(target) with
    respect to the hidden state, W[target] − p·W, is taken while the logits are at hand, so that the backward pass
    projects nothing and no [N, V] tensor outlives its chunk.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature, _chunk, softcap=None, scale=1.0, outputs=()):
        factor = scale / temperature
        results: dict[str, list[torch.Tensor]] = {name: [] for name in {"log_probs", *outputs}}
        slopes = []
        head = weight.to(hidden.dtype)
        # The same tables of [chunk, V] for all chunks: page faults of fresh ones cost more than the arithmetic.
        rows = min(TOKENS_AT_ONCE, len(hidden))
        low, full = hidden.new_empty(rows, len(weight)), hidden.new_empty(2, rows, len(weight), dtype=torch.float32)
        for h, t in zip(hidden.split(TOKENS_AT_ONCE), targets.split(TOKENS_AT_ONCE), strict=True):
            n, t = len(h), t.unsqueeze(-1)
            products, logits, p = low[:n], full[0, :n], full[1, :n]
            torch.mm(h, head.T, out=products)
            logits.copy_(products if bias is None else products + bias).mul_(factor)
            if "mean_logits" in outputs:
                results["mean_logits"].append(logits.mean(-1))
            highest = logits.amax(-1, keepdim=True)
            logits.sub_(highest)
            target = logits.gather(-1, t)
            torch.exp(logits, out=p)
            z = p.sum(-1, keepdim=True)
            results["log_probs"].append((target - z.log()).squeeze(-1))
            if "is_top1" in outputs:
                results["is_top1"].append((target == 0).squeeze(-1))
            if "entropy" in outputs:
                results["entropy"].append(z.log().squeeze(-1) - torch.linalg.vecdot(p, logits) / z.squeeze(-1))
            if "log_sum_sq_probs" in outputs:
                results["log_sum_sq_probs"].append((torch.linalg.vecdot(p, p) / z.squeeze(-1).square()).log())
            if ctx.needs_input_grad[0]:
                products.copy_(p)
                slopes.append(factor * (weight[t.squeeze(-1)].float() - (products @ head).float() / z))
        ctx.set_materialize_grads(False)
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
        joined = {name: torch.cat(parts) for name, parts in results.items()}
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(*(values for name, values in joined.items() if name != "log_probs"))
        return tuple(
            joined.get(name) for name in ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
        )

    @staticmethod
    def backward(ctx, grad, *_):
        (slopes,) = ctx.saved_tensors
        return (grad.unsqueeze(-1) * slopes).to(ctx.dtype), *[None] * 8


class _LogProb:
    """Stands for TRL's function: the direct one where it can, TRL's own for trained heads and softcapped logits."""

    @staticmethod
    def apply(hidden, weight, bias, targets, temperature, chunk, softcap, scale, outputs):
        direct = softcap is None and not weight.requires_grad and len(hidden)
        function = DirectLogProb if direct else ChunkedLogProbFunction
        return function.apply(hidden, weight, bias, targets, temperature, chunk, softcap, scale, outputs)


@contextmanager
def direct_lm_head(device: str) -> Iterator[None]:
    """While active, TRL's trainers score only positions with a label, through `DirectLogProb`.

    On a CUDA device with Triton TRL's own kernel is the better one, and nothing is changed.
    """
    if device == "cuda" and is_triton_available():
        yield
        return
    # TRL asks `_use_triton` here only to decide whether masked positions are dropped before the projection.
    with (
        mock.patch("trl.trainer.utils._use_triton", return_value=True),
        mock.patch("trl.trainer.utils._ChunkedLogProbFunction", _LogProb),
    ):
        yield
