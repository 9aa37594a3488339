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
    "people hope for soprano",
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
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("family", PUBLISHED)
def test_greedy_replies_are_the_published_models_and_stop_where_it_stops(publish, tmp_path, family):
    folder, config, tensors = publish(family)
    (folder / "generation_config.json").write_text('{"temperature": 0.3, "do_sample": true, "user_token_id": 195}')
    convert(folder, tmp_path / "native")
    model, _ = _native(tmp_path / "native")
    prompt = IDS[:20]
    reply = model.generate(prompt[None], max_new_tokens=12, do_sample=False, eos_token_id=None)[0, 20:]
    ids = prompt
    for _ in range(12):
        ids = torch.cat([ids, _reference(config, tensors, ids)[-1].argmax()[None]])
    assert reply.tolist() == ids[20:].tolist()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "native")
    stops = {"chatglm": ["</s>", "<|user|>", "<|observation|>"], "baichuan": ["</s>"]}[family]
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids(stops)
    assert model.generation_config.temperature == 0.3


def test_half_precision_weights_stay_as_they_are_but_for_the_normalised_head(publish, tmp_path):
    folder, _, tensors = publish("baichuan")
    tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    convert(folder, tmp_path / "native")
    assert [f.name for f in (tmp_path / "native").glob("*.safetensors*")] == ["model.safetensors"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "native", dtype="auto")
    assert model.dtype == torch.bfloat16
    q, k, v = tensors["model.layers.1.self_attn.W_pack.weight"].split(HIDDEN)
    attention = model.model.layers[1].self_attn
    native = (attention.q_proj, attention.k_proj, attention.v_proj)
    assert all(torch.equal(a.weight, b) for a, b in zip(native, (q, k, v), strict=True))
    lengths = model.lm_head.weight.float().norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=0.004)


@pytest.mark.parametrize("family", PUBLISHED)
def test_the_fast_tokenizer_reads_as_sentencepiece_does(publish, tmp_path, sentencepiece_models, family):
    convert(publish(family)[0], tmp_path / "native")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "native")
    sentencepiece = SentencePieceProcessor(model_proto=sentencepiece_models[family])
    replies = [r for c in read_conversations(ROOT / "data" / "dialogues").conversations for r in c.replies]
    for text in (*TEXTS, *replies[:200]):
        ids = sentencepiece.encode(text)
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
        assert tokenizer.decode(ids) == sentencepiece.decode(ids), text


def test_chatglms_control_tokens_follow_its_vocabulary_and_tear_no_word(publish, tmp_path, sentencepiece_models):
    convert(publish("chatglm")[0], tmp_path / "native")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "native")
    sentencepiece = SentencePieceProcessor(model_proto=sentencepiece_models["chatglm"])
    size = sentencepiece.vocab_size()
    names = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    assert tokenizer.convert_tokens_to_ids(names) == list(range(size, size + 9))
    assert tokenizer("people hope for soprano")["input_ids"] == [
        *(size + 1, size + 3),
        *sentencepiece.encode("people hope for soprano"),
    ]
    # The published code encodes each message by itself, with a space before it, as before a text of its own.
    wanted = [size + 1, size + 3, size + 6, *sentencepiece.encode("\n"), *sentencepiece.encode("やあ"), size + 7]
    prompt = "[gMASK]sop<|user|>\n やあ<|assistant|>"
    assert tokenizer.encode(prompt, add_special_tokens=False) == wanted
    assert tokenizer.decode(wanted, skip_special_tokens=True).strip() == "やあ"


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("chatglm", {"quantization_bit": 4}, "quantized weights"),
        ("chatglm", {"_name_or_path": "THUDM/chatglm2-6b-32k"}, "ChatGLM2.*take ChatGLM3-6B"),
        ("chatglm", {"position_encoding_2d": True}, "first generation"),
        ("chatglm", {"original_rope": False}, "original_rope = false"),
        ("chatglm", {"pre_seq_len": 128}, "pre_seq_len = 128"),
        ("chatglm", {"multi_query_attention": ...}, "multi_query_attention = false"),
        ("chatglm", {"kv_channels": ...}, "lacks 'kv_channels'"),
        ("chatglm", {"multi_query_group_num": 4}, "has 384 rows where the config says 512"),
        ("chatglm", {"padded_vocab_size": 1504}, "gives 1509 tokens and the model knows 1504"),
        ("chatglm", {"num_layers": 4}, "lacks 11 tensors, model.layers.3.input_layernorm.weight among them"),
        ("chatglm", {"num_layers": 2}, r"transformer.encoder.layers.2\S+ .*no place for it"),
        ("chatglm", {"ffn_hidden_size": 175}, r"dense_\S+ in the shape .* and glm wants \("),
        ("baichuan", {"max_position_embeddings": ..., "hidden_size": 5120}, "13B.*ALiBi.*take Baichuan2-7B"),
        ("baichuan", {"architectures": ["BaichuanM1ForCausalLM"]}, "BaichuanM1ForCausalLM, of which no native"),
        ("baichuan", {"quantization_config": {"bits": 4}}, "quantized weights"),
        ("baichuan", {"model_type": "llama"}, "neither a ChatGLM nor a Baichuan"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(publish, tmp_path, family, changes, words):
    folder, *_ = publish(family, **changes)
    with pytest.raises(NotConvertible, match=words) as error:
        convert(folder, tmp_path / "native")
    assert "\n" not in str(error.value)
    assert [f.name for f in tmp_path.iterdir()] == ["published"]


def test_a_damaged_or_incomplete_download_is_one_sentence(publish, tmp_path):
    def refused(error, words):
        with pytest.raises(error, match=words) as caught:
            convert(folder, tmp_path / "native")
        assert "\n" not in str(caught.value)
        assert [f.name for f in tmp_path.iterdir()] == ["published"]

    folder, _, tensors = publish("baichuan", pickled=True)
    with pytest.raises(NotConvertible, match="give another folder"):
        convert(folder, folder.parent)
    second = folder / "pytorch_model-00002-of-00002.bin"
    whole = second.read_bytes()
    second.write_bytes(whole[:-5000])
    refused(NotConvertible, "pytorch_model-00002.*cannot be read as plain tensors")
    torch.save({"lm_head.weight": torch.zeros(4, dtype=torch.int8)}, second)
    refused(NotConvertible, r"quantized weights \(lm_head.weight\)")
    second.unlink()
    refused(FileNotFoundError, "pytorch_model-00002.*is missing, though the index names it")
    for file in folder.glob("pytorch_model*"):
        file.unlink()
    refused(FileNotFoundError, "holds no weights")
    torch.save(tensors, folder / "pytorch_model.bin")
    for other in (b"IQ== 0\nIg== 1\n", b""):
        (folder / "tokenizer.model").write_bytes(other)
        refused(NotConvertible, "is no sentencepiece model")
    (folder / "tokenizer.model").unlink()
    refused(FileNotFoundError, "tokenizer.model is missing")
    (folder / "config.json").write_text("{")
    refused(NotConvertible, "config.json is no JSON")


class _Dropper:
    def __reduce__(self):
        return (exec, ("open('ran', 'w')",))


def test_no_code_of_a_checkpoint_is_run(publish, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _, tensors = publish("chatglm")
    (folder / "modeling_chatglm.py").write_text("open('ran', 'w')")
    convert(folder, tmp_path / "native")
    AutoTokenizer.from_pretrained(tmp_path / "native")
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    torch.save(tensors | {"extra": _Dropper()}, folder / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(NotConvertible, match="cannot be read as plain tensors"):
        convert(folder, tmp_path / "second")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("No space left on device")])
def test_an_interruption_leaves_the_old_folder_or_none(publish, tmp_path, monkeypatch, stop):
    folder, *_ = publish("chatglm")
    written = []

    def interrupted(tensors, file, metadata):
        if len(written) == 2:
            raise stop
        written.append(file)
        save_file(tensors, file, metadata)

    monkeypatch.setattr(shards, "save_file", interrupted)
    with pytest.raises(type(stop) if isinstance(stop, OSError) else stop):
        convert(folder, tmp_path / "native", shard_bytes=500_000)
    assert len(written) == 2
    assert [f.name for f in tmp_path.iterdir()] == ["published"]


def test_a_published_folder_as_base_model_is_converted_once_and_kept(publish, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(base_model, "CACHE", tmp_path / "cache")
    folder, *_ = publish("baichuan")
    with caplog.at_level(logging.INFO, "helpers"):
        first = base_model.resolve_base_model(str(folder))
        again = base_model.resolve_base_model(str(folder))
    assert first == again
    assert [r.getMessage() for r in caplog.records if r.name == "helpers.base_model"] == [
        f"{folder} is a Baichuan2: rewritten, once, for LlamaForCausalLM."
    ]
    assert (first.path.parent, first.name) == (tmp_path / "cache", str(folder))
    _, found = _native(first.path)
    assert found.isfinite().all()
    changed, *_ = publish("baichuan", name="changed", rms_norm_eps=1e-5)
    other = base_model.resolve_base_model(str(changed))
    assert other.path != first.path
    assert other.sha256 != first.sha256
    (first.path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        base_model.resolve_base_model(str(folder))


def test_a_hub_snapshot_is_converted_and_its_pickles_fetched_only_if_need_be(publish, tmp_path, monkeypatch):
    asked = []

    def snapshot(name, allow_patterns):
        asked.append(allow_patterns)
        return str(folders[name])

    folders = {
        "baichuan-inc/Baichuan2-7B-Chat": publish("baichuan", pickled=True)[0],
        "THUDM/chatglm3-6b": publish("chatglm", name="glm")[0],
    }
    for name, folder in folders.items():
        (folder / "MODEL_LICENSE").write_text(f"the terms of {name}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr(base_model, "CACHE", tmp_path / "cache")
    for name, model_class, calls in (
        ("baichuan-inc/Baichuan2-7B-Chat", LlamaForCausalLM, 2),
        ("THUDM/chatglm3-6b", GlmForCausalLM, 1),
    ):
        base = base_model.resolve_base_model(name)
        assert base.link == f"https://huggingface.co/{name}"
        assert (base.path / "MODEL_LICENSE").read_text() == f"the terms of {name}"
        assert base_model.resolve_base_model(name) == base
        del asked[calls:]
        assert type(_native(base.path)[0]) is model_class
        assert (len(asked), any("bin" in p for p in asked[-1])) == (calls, calls == 2)
        assert all("*LICENSE*" in patterns for patterns in asked)
        asked.clear()


# The other implementation: vLLM's own ChatGLM class, and vLLM on what was converted. Half a minute each. vLLM has had
# no Baichuan class since 0.23.0: for Baichuan's published layout the reference above is all there is.

_VLLM = """
import sys
import torch
from vllm import LLM, SamplingParams
folder, ids, out = sys.argv[1], torch.load(sys.argv[2]), sys.argv[3]
llm = LLM(folder, skip_tokenizer_init="published" in folder, dtype="float32", enforce_eager=True, max_model_len=128,
          max_logprobs=-1)
sampling = SamplingParams(max_tokens=1, prompt_logprobs=-1, detokenize=False)
(answer,) = llm.generate([{"prompt_token_ids": ids.tolist()}], sampling)
torch.save([[row[i].logprob for i in range(len(row))] for row in answer.prompt_logprobs[1:]], out)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("family", "which"), [("chatglm", "published"), ("chatglm", "native"), ("baichuan", "native")])
def test_vllm_agrees(publish, tmp_path, monkeypatch, family, which):
    folder, config, tensors = publish(family, rope_ratio=2) if family == "chatglm" else publish(family)
    convert(folder, tmp_path / "native")
    torch.save(IDS, tmp_path / "ids.pt")
    for name, value in {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", _VLLM, tmp_path / which, tmp_path / "ids.pt", tmp_path / "out.pt"]
    subprocess.run(command, check=True, cwd=tmp_path)
    theirs = torch.tensor(torch.load(tmp_path / "out.pt"))
    _, ours = _native(tmp_path / "native")
    torch.testing.assert_close(ours[:-1], theirs, rtol=0, atol=5e-5)
    torch.testing.assert_close(theirs.double(), _reference(config, tensors)[:-1], rtol=0, atol=5e-5)
