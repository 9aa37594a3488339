"""What ChatGLM3 and Baichuan2 publish, told in the terms of a native class that computes the same.

In: a checkpoint folder's config.json. Out: its `Layout`: the native config, what becomes of each published tensor, and
the tokens that the published tokenizer adds to its sentencepiece vocabulary. A model whose arithmetic no native class
has is refused.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GlmConfig, LlamaConfig, PreTrainedConfig


class NotConvertible(ValueError):
    """The checkpoint cannot be rewritten for a native class; the message says why and what to take instead."""


@dataclass(frozen=True)
class Layout:
    """A published layout and its native counterpart.

    Attributes:
        name: the model's name.
        config: the native class's config.
        tensors: maps a published tensor's name and value to its native tensors by name, none if it is not needed.
        added_tokens: what the published tokenizer puts behind the sentencepiece vocabulary, in the order of their ids.
        prefix: the tokens among them that begin every text.
        stop_tokens: the tokens that end a reply.
    """

    name: str
    config: PreTrainedConfig
    tensors: Callable[[str, torch.Tensor], dict[str, torch.Tensor]]
    added_tokens: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    stop_tokens: tuple[str, ...] = ("</s>",)


def read_layout(folder: Path) -> Layout | None:
    """The layout of the checkpoint in `folder`, or None if it is no ChatGLM or Baichuan.

    Raises:
        NotConvertible: it is one of them, of a kind that no native class computes, or its config is damaged.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise NotConvertible(f"{folder / 'config.json'} is no JSON ({error}): download it again.") from error
    read = {"chatglm": _chatglm, "baichuan": _baichuan}.get(config.get("model_type"))
    if read is None:
        return None
    if config.get("quantization_bit") or config.get("quantization_config"):
        raise NotConvertible(f"{folder} holds quantized weights, which cannot be undone: take the 16-bit checkpoint.")
    try:
        return read(config, folder)
    except KeyError as missing:
        raise NotConvertible(f"{folder / 'config.json'} lacks {missing}, which the published ones have.") from None


_CHATGLM_NAMES = {
    "transformer.embedding.word_embeddings": "model.embed_tokens",
    "transformer.encoder.layers": "model.layers",
    "transformer.encoder.final_layernorm": "model.norm",
    "transformer.output_layer": "lm_head",
    "self_attention.query_key_value": "self_attn.{}_proj",
    "self_attention.dense": "self_attn.o_proj",
    "mlp.dense_h_to_4h": "mlp.gate_up_proj",
    "mlp.dense_4h_to_h": "mlp.down_proj",
}
# What GLM computes, with the value that the published configuration class has for a key left out.
_CHATGLM_MUST = {
    "rmsnorm": (True, True),
    "multi_query_attention": (True, False),
    "post_layer_norm": (True, True),
    "original_rope": (True, True),
    "add_bias_linear": (False, False),
    "interleaved_qkv": (False, False),
    "tie_word_embeddings": (False, False),
    "apply_residual_connection_post_layernorm": (False, False),
    "pre_seq_len": (None, None),
}


def _chatglm(config: dict, folder: Path) -> Layout:
    """ChatGLM3 as GLM: rotary embedding in adjacent pairs on the first half of each head, keys and values in groups, a
    bias on query, key and value alone, SwiGLU with gate and up in one matrix, RMSNorm, a head of its own."""
    if "position_encoding_2d" in config:
        raise NotConvertible(
            f"{folder} is a ChatGLM of the first generation, whose two-dimensional positions no native class has: "
            "take ChatGLM3-6B."
        )
    if _is_chatglm2(config, folder):
        raise NotConvertible(
            f"{folder} is a ChatGLM2, which has no chat tokens and, in its 32k form, stretches positions as GLM does "
            "not: take ChatGLM3-6B."
        )
    for key, (needed, default) in _CHATGLM_MUST.items():
        if (found := config.get(key, default)) != needed:
            raise NotConvertible(
                f"{folder / 'config.json'} says {key} = {json.dumps(found)}, and GLM computes only "
                f"{json.dumps(needed)}: take ChatGLM3-6B."
            )
    head_dim, groups = config["kv_channels"], config["multi_query_group_num"]
    rows = (config["num_attention_heads"] * head_dim, groups * head_dim, groups * head_dim)

    def tensors(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        if name.endswith("rotary_pos_emb.inv_freq"):
            return {}
        for published, native in _CHATGLM_NAMES.items():
            name = name.replace(published, native)
        return _split(name, tensor, rows)

    return Layout(
        name="ChatGLM3",
        config=GlmConfig(
            vocab_size=config["padded_vocab_size"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["ffn_hidden_size"],
            num_hidden_layers=config["num_layers"],
            num_attention_heads=config["num_attention_heads"],
            num_key_value_heads=groups,
            head_dim=head_dim,
            max_position_embeddings=config["seq_length"],
            rms_norm_eps=config["layernorm_epsilon"],
            attention_bias=config.get("add_qkv_bias", False),
            attention_dropout=config.get("attention_dropout", 0.0),
            tie_word_embeddings=False,
            # ChatGLM3-6B-32k multiplies the base of the rotary embedding.
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0 * config.get("rope_ratio", 1),
                "partial_rotary_factor": 0.5,
            },
            pad_token_id=config.get("pad_token_id", 0),
            eos_token_id=config.get("eos_token_id", 2),
            bos_token_id=None,
        ),
        tensors=tensors,
        added_tokens=(
            *("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"),
            *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        ),
        prefix=("[gMASK]", "sop"),
        stop_tokens=("</s>", "<|user|>", "<|observation|>"),
    )


def _is_chatglm2(config: dict, folder: Path) -> bool:
    """Whether the folder says so itself: the two generations' configs differ in nothing that their classes read."""
    code = folder / "tokenization_chatglm.py"
    return any(name in config.get("_name_or_path", "").lower() for name in ("chatglm2", "codegeex2")) or (
        code.exists() and "<|assistant|>" not in code.read_text(encoding="utf-8")
    )


def _baichuan(config: dict, folder: Path) -> Layout:
    """Baichuan2-7B as Llama: query, key and value in one matrix, and a head whose rows are scaled to length 1, once and
    for all. Baichuan-7B, the first generation, has the plain head; its class is written with a capital C."""
    if "max_position_embeddings" not in config or config["hidden_size"] == 5120:
        raise NotConvertible(
            f"{folder} is a Baichuan of 13B, which marks positions by ALiBi, and no native class with its other parts "
            "does: take Baichuan2-7B."
        )
    (architecture,) = config["architectures"]
    if architecture not in ("BaichuanForCausalLM", "BaiChuanForCausalLM"):
        raise NotConvertible(f"{folder} is a {architecture}, of which no native class is known: take Baichuan2-7B.")
    normalised_head = architecture == "BaichuanForCausalLM"
    hidden_size = config["hidden_size"]

    def tensors(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        if name.endswith("rotary_emb.inv_freq"):
            return {}
        if name == "lm_head.weight" and normalised_head:
            return {name: torch.cat([_unit_rows(rows) for rows in tensor.split(8192)])}
        return _split(name.replace("W_pack", "{}_proj"), tensor, (hidden_size,) * 3)

    return Layout(
        name="Baichuan2" if normalised_head else "Baichuan",
        config=LlamaConfig(
            vocab_size=config["vocab_size"],
            hidden_size=hidden_size,
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=config["num_attention_heads"],
            hidden_act=config["hidden_act"],
            max_position_embeddings=config["max_position_embeddings"],
            rms_norm_eps=config["rms_norm_eps"],
            tie_word_embeddings=config.get("tie_word_embeddings", False),
            pad_token_id=config.get("pad_token_id", 0),
            bos_token_id=config.get("bos_token_id", 1),
            eos_token_id=config.get("eos_token_id", 2),
        ),
        tensors=tensors,
    )


def _unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """`rows` at length 1, reckoned in float32."""
    return torch.nn.functional.normalize(rows.float(), dim=-1).to(rows.dtype)


def _split(name: str, tensor: torch.Tensor, rows: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    """{name: tensor}, or, where `name` leaves a gap for them, its rows as query, key and value."""
    if "{}" not in name:
        return {name: tensor}
    if len(tensor) != sum(rows):
        raise NotConvertible(
            f"The tensor {name.format('qkv')} has {len(tensor)} rows where the config says {sum(rows)}."
        )
    return {name.format(part): piece for part, piece in zip("qkv", tensor.split(rows), strict=True)}
