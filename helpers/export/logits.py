"""The model's logits where the companion is supervised, and nowhere else.

In: a model and supervised rows. Out: logits and targets, a bounded number of positions at a time: with 262,144 words in
Gemma 3's vocabulary the head is two thirds of the work, and most positions are only read.
"""

from collections.abc import Iterator, Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from helpers.supervision import Row

POSITIONS = 256  # of float32 logits held at once: 268 MB with Gemma 3's vocabulary


@torch.inference_mode()
def supervised_logits(
    model: PreTrainedModel | PeftModel, rows: Sequence[Row], batch_size: int = 4
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (logits [n, vocabulary] in float32, targets [n]) on the model's device, n ≤ `POSITIONS`.

    Each logit row predicts the supervised token of `targets` from the tokens before it. The order depends on `rows` and
    `batch_size` only, so that two models can be compared step by step.
    """
    core = model.get_base_model() if isinstance(model, PeftModel) else model
    cap = getattr(core.config, "final_logit_softcapping", None)  # Gemma 2's (arXiv:2408.00118, section 2)
    model.eval()
    decoder, head = core.get_decoder(), core.get_output_embeddings()
    for start in range(0, len(rows), batch_size):
        batch = [(torch.tensor(r.input_ids), torch.tensor(r.assistant_masks)) for r in rows[start : start + batch_size]]
        ids, keep = (
            torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(core.device)
            for tensors in zip(*batch, strict=True)
        )
        real = torch.nn.utils.rnn.pad_sequence([torch.ones_like(i) for i, _ in batch], batch_first=True)
        hidden = decoder(input_ids=ids, attention_mask=real.to(core.device), use_cache=False).last_hidden_state
        learned = keep[:, 1:].bool()
        states, targets = hidden[:, :-1][learned], ids[:, 1:][learned]
        for part, wanted in zip(states.split(POSITIONS), targets.split(POSITIONS), strict=True):
            logits = head(part)
            yield (logits if cap is None else torch.tanh(logits / cap) * cap).float(), wanted
