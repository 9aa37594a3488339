"""ChatGLM3 and Baichuan2 as published, rewritten for native classes: the same log-probabilities, or a clear refusal."""

import io
import json
import logging
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from torch.nn.functional import rms_norm, silu
from transformers import AutoModelForCausalLM, AutoTokenizer, GlmForCausalLM, LlamaForCausalLM

from helpers import base_model
from helpers.conversations import read_conversations
from helpers.conversion import shards
from helpers.conversion.convert import convert
from helpers.conversion.layouts import NotConvertible
from helpers.settings import ROOT

LAYERS, HEADS, GROUPS, HEAD_DIM, HIDDEN, INNER = 3, 8, 2, 32, 256, 176
VOCAB = 1536
SYMBOLS = [f"<reserved_{n}>" for n in range(3)] + ["。", "\n"]
TEXTS = (
    "おはよ！昨日はちゃんと眠れた？",
    "people hope for soprano; sop eop",
    " 二つ  空白\tと\n改行 ",
    "𩸽と👩‍👩‍👧と①",
    "",
)


# The published layouts, by their tensors' names and their configs' keys.


def _random(generator, *shape, scale=0.1):
    return torch.randn(*shape, generator=generator) * scale


def _chatglm(vocab: int) -> tuple[dict, dict[str, torch.Tensor]]:
    config = {
        "_name_or_path": "THUDM/chatglm3-6b",
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "auto_map": {"AutoConfig": "configuration_chatglm.ChatGLMConfig"},
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False,
        "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True,
        "ffn_hidden_size": INNER,
        "fp32_residual_connection": False,
        "hidden_dropout": 0.0,
        "hidden_size": HIDDEN,
        "kv_channels": HEAD_DIM,
        "layernorm_epsilon": 1e-5,
        "multi_query_attention": True,
        "multi_query_group_num": GROUPS,
        "num_attention_heads": HEADS,
        "num_layers": LAYERS,
        "original_rope": True,
        "padded_vocab_size": vocab,
        "post_layer_norm": True,
        "rmsnorm": True,
        "seq_length": 512,
        "use_cache": True,
        "torch_dtype": "float16",
        "tie_word_embeddings": False,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    g = torch.Generator().manual_seed(1)
    rows = (HEADS + 2 * GROUPS) * HEAD_DIM
    tensors = {
        "transformer.embedding.word_embeddings.weight": _random(g, vocab, HIDDEN),
        "transformer.rotary_pos_emb.inv_freq": 10000 ** -(torch.arange(0, HEAD_DIM // 2, 2) / (HEAD_DIM // 2)),
        "transformer.encoder.final_layernorm.weight": 1 + _random(g, HIDDEN),
        "transformer.output_layer.weight": _random(g, vocab, HIDDEN),
    }
    for n in range(LAYERS):
        layer = f"transformer.encoder.layers.{n}."
        tensors |= {
            layer + "input_layernorm.weight": 1 + _random(g, HIDDEN),
            layer + "self_attention.query_key_value.weight": _random(g, rows, HIDDEN),
            layer + "self_attention.query_key_value.bias": _random(g, rows),
            layer + "self_attention.dense.weight": _random(g, HIDDEN, HEADS * HEAD_DIM),
            layer + "post_attention_layernorm.weight": 1 + _random(g, HIDDEN),
            layer + "mlp.dense_h_to_4h.weight": _random(g, 2 * INNER, HIDDEN),
            layer + "mlp.dense_4h_to_h.weight": _random(g, HIDDEN, INNER),
        }
    return config, tensors


def _baichuan(vocab: int) -> tuple[dict, dict[str, torch.Tensor]]:
    config = {
        "architectures": ["BaichuanForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_baichuan.BaichuanConfig"},
        "tokenizer_class": "BaichuanTokenizer",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "max_position_embeddings": 512,
        "model_max_length": 512,
        "model_type": "baichuan",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": vocab,
    }
    g = torch.Generator().manual_seed(2)
    tensors = {
        "model.embed_tokens.weight": _random(g, vocab, HIDDEN),
        "model.norm.weight": 1 + _random(g, HIDDEN),
        # Rows of very different lengths: only their directions count.
        "lm_head.weight": _random(g, vocab, HIDDEN) * torch.rand(vocab, 1, generator=g) * 3,
    }
    for n in range(LAYERS):
        layer = f"model.layers.{n}."
        tensors |= {
            layer + "input_layernorm.weight": 1 + _random(g, HIDDEN),
            layer + "self_attn.W_pack.weight": _random(g, 3 * HIDDEN, HIDDEN),
            layer + "self_attn.o_proj.weight": _random(g, HIDDEN, HIDDEN),
            layer + "post_attention_layernorm.weight": 1 + _random(g, HIDDEN),
            layer + "mlp.gate_proj.weight": _random(g, INNER, HIDDEN),
            layer + "mlp.up_proj.weight": _random(g, INNER, HIDDEN),
            layer + "mlp.down_proj.weight": _random(g, HIDDEN, INNER),
        }
    return config, tensors


PUBLISHED = {"chatglm": (_chatglm, GlmForCausalLM), "baichuan": (_baichuan, LlamaForCausalLM)}


@pytest.fixture(scope="module")
def sentencepiece_models() -> dict[str, bytes]:
    """ChatGLM's puts a space before the text; Baichuan2's does not, and has symbols that are never split or joined."""
    replies = [r for c in read_conversations(ROOT / "data" / "dialogues").conversations for r in c.replies]
    models = {}
    for family, options in {
        "chatglm": {"add_dummy_prefix": True},
        "baichuan": {"add_dummy_prefix": False, "user_defined_symbols": SYMBOLS},
    }.items():
        out = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter([*replies, "people hope for soprano", "  two  spaces"] * 2),
            model_writer=out,
            model_type="bpe",
            vocab_size=1500,
            byte_fallback=True,
            character_coverage=0.98,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            allow_whitespace_only_pieces=True,
            minloglevel=2,
            **options,
        )
        models[family] = out.getvalue()
    return models


@pytest.fixture
def publish(tmp_path, sentencepiece_models):
    """Writes a tiny random checkpoint in a family's published layout; gives folder, config and tensors."""

    def write(family: str, pickled: bool = False, name: str = "published", **changes):
        folder = tmp_path / name
        folder.mkdir()
        config, tensors = PUBLISHED[family][0](VOCAB)
        config = {key: value for key, value in (config | changes).items() if value is not ...}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer.model").write_bytes(sentencepiece_models[family])
        suffix, save, index = ("bin", torch.save, "pytorch_model.bin") if pickled else ("safetensors", save_file, None)
        stem, index = ("pytorch_model", index) if pickled else ("model", "model.safetensors")
        names = [list(tensors)[::2], list(tensors)[1::2]]
        files = [f"{stem}-{n + 1:05}-of-00002.{suffix}" for n in range(2)]
        for file, part in zip(files, names, strict=True):
            save({key: tensors[key] for key in part}, folder / file)
        weight_map = {key: file for file, part in zip(files, names, strict=True) for key in part}
        (folder / f"{index}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        return folder, config, tensors

    return write


# What the published models compute, written out from their descriptions, in float64.


def _attend(q, k, v):
    """Causal attention over [heads, positions, dim]."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ v


def _turn(pairs: torch.Tensor, base: float) -> torch.Tensor:
    """Turns [heads, positions, n, 2], pair j at position p by the angle p / base^(j/n), as complex numbers."""
    n = pairs.shape[-2]
    angles = torch.arange(pairs.shape[-3])[:, None] * base ** -(torch.arange(n, dtype=torch.float64) / n)
    turned = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned)


def _reference_chatglm(config, w, ids):
    def rotary(x):
        """Neighbours make a pair; the second half of each head stays as it is."""
        half = HEAD_DIM // 2
        turned = _turn(x[..., :half].unflatten(-1, (-1, 2)), 10000 * config.get("rope_ratio", 1))
        return torch.cat([turned.flatten(-2), x[..., half:]], -1)

    def norm(x, name):
        return rms_norm(x, x.shape[-1:], w[name], config["layernorm_epsilon"])

    x = w["transformer.embedding.word_embeddings.weight"][ids]
    for n in range(LAYERS):
        layer = f"transformer.encoder.layers.{n}."
        packed = norm(x, layer + "input_layernorm.weight") @ w[layer + "self_attention.query_key_value.weight"].T
        packed = (packed + w[layer + "self_attention.query_key_value.bias"]).unflatten(-1, (-1, HEAD_DIM))
        q, k, v = packed.transpose(0, 1).split([HEADS, GROUPS, GROUPS])
        k, v = (t.repeat_interleave(HEADS // GROUPS, 0) for t in (rotary(k), v))
        mixed = _attend(rotary(q), k, v).transpose(0, 1).flatten(1)
        x = x + mixed @ w[layer + "self_attention.dense.weight"].T
        inner = norm(x, layer + "post_attention_layernorm.weight") @ w[layer + "mlp.dense_h_to_4h.weight"].T
        gate, up = inner.chunk(2, -1)
        x = x + (silu(gate) * up) @ w[layer + "mlp.dense_4h_to_h.weight"].T
    return norm(x, "transformer.encoder.final_layernorm.weight") @ w["transformer.output_layer.weight"].T


def _reference_baichuan(config, w, ids):
    def rotary(x):
        """Entry j and entry j + half make a pair."""
        return _turn(x.unflatten(-1, (2, -1)).transpose(-1, -2), 10000).transpose(-1, -2).flatten(-2)

    def norm(x, name):
        return rms_norm(x, x.shape[-1:], w[name], config["rms_norm_eps"])

    x = w["model.embed_tokens.weight"][ids]
    for n in range(LAYERS):
        layer = f"model.layers.{n}."
        packed = norm(x, layer + "input_layernorm.weight") @ w[layer + "self_attn.W_pack.weight"].T
        q, k, v = packed.unflatten(-1, (3, HEADS, HEAD_DIM)).permute(1, 2, 0, 3)
        mixed = _attend(rotary(q), rotary(k), v).transpose(0, 1).flatten(1)
        x = x + mixed @ w[layer + "self_attn.o_proj.weight"].T
        inner = norm(x, layer + "post_attention_layernorm.weight")
        gate, up = (inner @ w[layer + f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (silu(gate) * up) @ w[layer + "mlp.down_proj.weight"].T
    head = w["lm_head.weight"]
    if config["architectures"] == ["BaichuanForCausalLM"]:
        head = head / head.norm(dim=-1, keepdim=True)
    return norm(x, "model.norm.weight") @ head.T


REFERENCES = {"chatglm": _reference_chatglm, "baichuan": _reference_baichuan}
IDS = torch.randint(3, VOCAB, (40,), generator=torch.Generator().manual_seed(3))


def _reference(config, tensors, ids=IDS):
    wide = {name: tensor.double() for name, tensor in tensors.items()}
    return REFERENCES[config["model_type"]](config, wide, ids).log_softmax(-1)


@torch.no_grad()
def _native(folder, ids=IDS):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, model(ids[None]).logits[0].log_softmax(-1)


@pytest.mark.parametrize(
    ("family", "pickled", "changes"),
    [
        ("chatglm", False, {}),
        ("chatglm", True, {"rope_ratio": 50}),
        ("chatglm", False, {"_name_or_path": ...}),
        ("baichuan", True, {}),
        ("baichuan", False, {"architectures": ["BaiChuanForCausalLM"]}),
    ],
)
def test_the_converted_model_computes_what_the_published_one_does(publish, tmp_path, family, pickled, changes):
    folder, config, tensors = publish(family, pickled, **changes)
    convert(folder, tmp_path / "native", shard_bytes=500_000)
    model, found = _native(tmp_path / "native")
    assert type(model) is PUBLISHED[family][1]
    assert model.config.dtype == torch.float32
    assert len(list((tmp_path / "native").glob("model-*-of-*.safetensors"))) > 2
    wanted = _reference(config, tensors)
    assert wanted.std() > 0.5
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-5)
