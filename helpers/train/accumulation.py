"""DPO's gradients, accumulated over micro-batches: those of one large batch.

In: the micro-batches of a step. Out: the weight of each one's losses. TRL 1.16 adds up the means of micro-batches, in
which a token counts the more, the fewer there are beside it, and a pair likewise. SFTTrainer counts tokens itself.
"""

from collections.abc import Mapping

import torch

from helpers.train import ranks


class WholeStep:
    """Mixin for `DPOTrainer`: in the preference losses every pair of a step counts alike, in the SFT loss every token,
    however the pairs are shared out among micro-batches and processes."""

    def get_batch_samples(self, *args):
        batches, items = super().get_batch_samples(*args)
        counts = [_pairs_and_tokens(batch) for batch in batches]
        own = torch.tensor([[sum(pairs for pairs, _ in counts), sum(tokens for _, tokens in counts)]])
        self._step_pairs, self._step_tokens = self.accelerator.gather(own.to(self.args.device)).sum(0).tolist()
        return batches, items

    def training_step(self, model, inputs, *args, **kwargs):
        given, means = self.loss_weights, self.current_gradient_accumulation_steps * ranks.processes()
        pairs, tokens = _pairs_and_tokens(inputs)
        by_pairs, by_tokens = means * (pairs / self._step_pairs), means * (tokens / self._step_tokens)
        self.loss_weights = [
            weight * (by_tokens if name == "sft" else by_pairs)
            for name, weight in zip(self.loss_types, given, strict=True)
        ]
        try:
            return super().training_step(model, inputs, *args, **kwargs)
        finally:
            self.loss_weights = given


def _pairs_and_tokens(batch: Mapping[str, torch.Tensor]) -> tuple[int, int]:
    """Of a batch in TRL's columns: its pairs, and the tokens of their better replies."""
    better, _ = batch["completion_mask"][:, 1:].chunk(2)
    return len(better), int(better.sum())
