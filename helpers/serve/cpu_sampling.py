"""Sampling of a vLLM server on a CPU: from the tokens that top_k leaves, not from the whole vocabulary.

vLLM 0.32 divides the logits of all tokens by the temperature, weighs them all for min_p, and draws a random number for
each: 262,144 of Gemma 3's, for each reply and each of its tokens, where top_k lets 40 of them be drawn. Here those are
taken first. Each is drawn as often as by vLLM; which one a seed draws is another. Beside a request with more candidates
all are drawn as vLLM does it, so a seed keeps its word only among requests with few.
"""

import torch
from vllm.v1.sample import sampler
from vllm.v1.sample.metadata import SamplingMetadata

FEW = 256  # tokens; with more of them, or no top_k, as vLLM does it


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
        top_k = asked.top_k.masked_fill(greedy, 1)
        if (most := int(top_k.max())) > FEW:
            return super().sample(logits, asked, logprobs_mode_override)
        values, tokens = logits.topk(most)
        values = self.apply_temperature(values, asked.temperature, asked.all_random)
        for processor in asked.logitsprocs.argmax_invariant:
            values = processor.apply(values)
        drawn, _ = self.topk_topp_sampler(values, asked.generators, top_k, asked.top_p)
        sampled = tokens.gather(1, drawn.long().view(-1, 1))[:, 0]
        return sampled if asked.all_random else torch.where(greedy, self.greedy_sample(logits), sampled), None
