"""A base model so small that a whole training run takes a second: random Qwen2 weights, 600 words; and tokenizers of
that size for all families."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from helpers.base_model import BaseModel, resolve_base_model
from helpers.families import FAMILIES
from helpers.persona import load_persona, system_prompt

# (begin, end of sequence) as published
ENDS = {
    "gemma3": ("<bos>", "<eos>"),
    "gemma": ("<bos>", "<eos>"),
    "qwen2.5": (None, "<|im_end|>"),
    "yi-1.5": ("<|startoftext|>", "<|im_end|>"),
    "chatglm3": (None, "</s>"),
    "baichuan2": ("<s>", "</s>"),
    "llama3": ("<|begin_of_text|>", "<|end_of_text|>"),
    "llama3.1": ("<|begin_of_text|>", "<|eot_id|>"),
}


def small_tokenizer(name: str = "qwen2.5") -> PreTrainedTokenizerFast:
    """The family's special tokens and some 600 others; the same each time. Not prepared."""
    backend, family = Tokenizer(models.BPE()), FAMILIES[name]
    bos, eos = ENDS.get(name, ("<s>", "</s>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [system_prompt(load_persona(), "friend")],
        trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        extra_special_tokens=list(dict.fromkeys([*family.tokens, family.end_of_turn, family.pad])),
    )


def small_base(folder: Path, heads: int = 4, family: str = "qwen2.5") -> BaseModel:
    """Made in `folder`; the same bytes each time. vLLM on a CPU takes no head narrower than 32: for it `heads` is 2.

    Like a published base it has no template of ours, and stops at the end of a text alone. The weights are Qwen2's for
    each `family` of tokenizer."""
    tokenizer = small_tokenizer(family)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return resolve_base_model(str(folder))
