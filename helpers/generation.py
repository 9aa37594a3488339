"""Replies straight from a transformers model, in batches: what the training notebooks compare before and after.

In: model, tokenizer, chats. Out: `Reply` objects, in the same order.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.families import stop_token_ids
from helpers.replies import Reply

# Chats answered together. Twenty raised the peak of 03_lora on a CPU from 10.1 to 18.0 GiB (Gemma 3 270M, 2026-11-24).
AT_ONCE = 3


@torch.inference_mode()
def reply(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Sequence[dict[str, str]]],
    max_new_tokens: int = 80,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Reply]:
    """Answer each chat (which ends with a user's turn), `AT_ONCE` at a time. `temperature` 0 is greedy; else top_k,
    top_p and min_p are the checkpoint's (generation_config.json), as when she is served."""
    torch.manual_seed(seed)
    training = model.training
    model.eval()
    replies = []
    for start in range(0, len(chats), AT_ONCE):
        replies += _reply(model, tokenizer, chats[start : start + AT_ONCE], max_new_tokens, temperature)
    model.train(training)
    return replies


def _reply(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Sequence[dict[str, str]]],
    max_new_tokens: int,
    temperature: float,
) -> list[Reply]:
    encoded = tokenizer.apply_chat_template(
        [list(chat) for chat in chats],
        add_generation_prompt=True,
        padding=True,
        tokenizer_kwargs={"padding_side": "left"},
        return_dict=True,
        return_tensors="pt",
    ).to(model.device)
    stops = stop_token_ids(tokenizer)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    # A fresh generation_config: the checkpoint's sampling defaults must not leak into greedy decoding.
    output = model.generate(
        **encoded,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        **sampling,
        **({} if temperature else dict.fromkeys(("temperature", "top_p", "top_k", "min_p"))),
    )
    replies = []
    for new in output[:, encoded["input_ids"].shape[1] :].tolist():
        length = next((i for i, token in enumerate(new) if token in stops), None)
        words = new if length is None else new[:length]
        replies.append(Reply(tokenizer.decode(words, skip_special_tokens=True).strip(), length is not None, len(words)))
    return replies
