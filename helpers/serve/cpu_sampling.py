"""Sampling of a vLLM server on a CPU: from the tokens that top_k leaves, not from the whole vocabulary.

vLLM 0.32 divides the logits of all tokens by the temperature, weighs them all for min_p, and draws a random number for
each: 262,144 of Gemma 3's, for each reply and each of its tokens, where top_k lets 40 of them be drawn. Here those are
taken first. Each is drawn as often as by vLLM; which one a seed draws is another, and the same whatever is served
beside it. A request with a larger top_k, or none, draws as vLLM does.
"""

import dataclasses

import torch
from vllm.v1.sample import sampler
from vllm.v1.sample.metadata import SamplingMetadata

FEW = 128  # tokens that are looked at in each reply: a fixed number, so that a seed's draws do not depend on others


class FewCandidates(sampler.Sampler):
    """As vLLM's own; `logits` are replies × tokens."""

    def sample(
        self, logits: torch.Tensor, sampling_metadata: SamplingMetadata, logprobs_mode_override: str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        asked = sampling_metadata
        raw = (logprobs_mode_override or self.logprobs_mode).startswith("raw")  # else all of them are given back
        if asked.all_greedy or asked.top_k is None or not raw:
            return super().sample(logits, asked, logprobs_mode_override)
        greedy = asked.temperature < sampler._SAMPLING_EPS
        few = greedy | (asked.top_k <= FEW)
        sampled = torch.where(greedy, self.greedy_sample(logits), self._from_few(logits, _of(asked, few)))
        if not few.all():
            whole, _ = super().sample(logits, _of(asked, ~few), logprobs_mode_override)
            sampled = torch.where(few, sampled, whole)
        return sampled, None

    def _from_few(self, logits: torch.Tensor, asked: SamplingMetadata) -> torch.Tensor:
        values, tokens = logits.topk(min(FEW, logits.shape[1]))
        values = self.apply_temperature(values, asked.temperature, asked.all_random)
        for processor in asked.logitsprocs.argmax_invariant:
            values = processor.apply(values)
        top_k = asked.top_k.clamp(max=values.shape[1])
        drawn, _ = self.topk_topp_sampler(values, asked.generators, top_k, asked.top_p)
        return tokens.gather(1, drawn.long().view(-1, 1))[:, 0]


def _of(asked: SamplingMetadata, replies: torch.Tensor) -> SamplingMetadata:
    """`asked`, with the random numbers of these `replies` alone: another's are not drawn twice."""
    return dataclasses.replace(asked, generators={row: g for row, g in asked.generators.items() if replies[row]})
