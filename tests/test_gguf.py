"""GGUF files: llama.cpp reads, stops and says what the merged model does, and what it would do otherwise is refused."""

import json
import re

import pytest
import torch
from small import small_base
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from helpers.conversations import Conversation
from helpers.export import gguf, quality, worker
from helpers.export.serving_files import write_serving_files
from helpers.families import FAMILIES, stop_token_ids
from helpers.persona import system_prompt
from helpers.supervision import supervise_all

SPOKEN = [
    ["ただいま", "おかえり😊"],
    ["元気？", "うん、元気だよ。", "よかった", "ありがとね"],
    ["おやすみ", "また明日ね🌙"],
]


@pytest.fixture(scope="module")
def model(card, tmp_path_factory):
    """Gemma 3 with random weights and a SentencePiece vocabulary of some 900 pieces, as a stage of export leaves it."""
    backend, family = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True)), FAMILIES["gemma3"]
    backend.normalizer, backend.decoder = (
        normalizers.Replace(" ", "▁"),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
    )
    special = [family.pad, "<eos>", "<bos>", "<unk>", *family.tokens]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[*special, *(f"<0x{b:02X}>" for b in range(256))], show_progress=False
    )
    prompts = "\n".join(system_prompt(card, level) for level in card.levels)
    backend.train_from_iterator(re.split("[、。\n]", prompts), trainer)
    whole = json.loads(backend.to_str())
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["content"] in special]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(whole)), bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    source, folder = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("export") / "merged"
    tokenizer.save_pretrained(source)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=64,
        query_pre_attn_scalar=64,
        layer_types=["sliding_attention"] * 5 + ["full_attention"],  # llama.cpp knows no other pattern
        sliding_window=512,
        max_position_embeddings=2048,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
        initializer_range=0.05,
    )
    Gemma3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    write_serving_files(source, folder)
    return folder


def test_llama_cpp_says_what_the_merged_model_says(model, card, tmp_path):
    from helpers.families import load_tokenizer

    made = gguf.convert(model, tmp_path / "gguf", ["f16", "q8_0", "q4_K_M"], tmp_path / "gguf.log")
    assert set(made.files) == {"f16", "q8_0", "q4_K_M"} and all(f.exists() for f in made.files.values())
    assert made.bytes["f16"] > made.bytes["q8_0"] > made.bytes["q4_K_M"] > 0
    assert not [f for f in tmp_path.rglob("*") if "part" in f.name or "tokenizer" in f.name]

    tokenizer = load_tokenizer(model)
    talks = [
        Conversation(messages=[{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(talk)])
        for talk in SPOKEN
    ]
    rows, prompts = supervise_all(tokenizer, talks, card), [quality.Prompt.first_turn(t, card) for t in talks]
    found = quality.measure({"merged": model, **made.files}, rows, 2, prompts, card, 6, tmp_path / "quality.log")
    assert {q.tokens for q in found.values()} == {sum(len(r.supervised) for r in rows)}
    f16, q8, q4 = (found[name] for name in ("f16", "q8_0", "q4_K_M"))
    assert f16.same_token == 1 and f16.perplexity == pytest.approx(found["merged"].perplexity, rel=0.01)
    assert f16.mean_abs < q8.mean_abs < q4.mean_abs
    assert f16.replies == found["merged"].replies and f16.same_reply == 1 and f16.persona == found["merged"].persona
    assert all(q.tokens_per_second > 0 for q in found.values())

    noted = (tmp_path / "gguf" / "export.json").read_text()
    again = gguf.convert(model, tmp_path / "gguf", ["f16", "q8_0", "q4_K_M"], tmp_path / "again.log")
    assert again.files == made.files and not (tmp_path / "again.log").exists()
    assert (tmp_path / "gguf" / "export.json").read_text() == noted


@pytest.mark.parametrize(("scheme", "spaced"), [("first", False), ("always", True)])
def test_whether_a_space_is_read_behind_a_control_token_is_the_tokenizers(scheme, spaced):
    backend = Tokenizer(models.BPE({"<unk>": 0, "</s>": 1, "▁": 2, "x": 3}, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    assert gguf._spaces_behind_tokens(tokenizer) == spaced


def test_what_is_no_type_is_said(model, tmp_path):
    with pytest.raises(ValueError, match=r"^There is no GGUF type 'q5' here: use f16, q8_0, q4_K_M\.$"):
        gguf.convert(model, tmp_path / "gguf", ["f16", "q5"], tmp_path / "gguf.log")
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_that_llama_cpp_does_not_know_is_refused(tmp_path):
    base = small_base(tmp_path / "base")
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "f16.gguf").write_bytes(b"of an earlier model")
    with pytest.raises(worker.Refused, match=r"^llama.cpp's converter cannot take base: .*not recognized"):
        gguf.convert(base.path, tmp_path / "gguf", ["f16"], tmp_path / "gguf.log")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["base", "gguf.log"]


@pytest.mark.parametrize("fault", ["template", "vocabulary", "end"])
def test_a_file_that_reads_or_stops_otherwise_is_refused(model, tmp_path, fault, monkeypatch):
    from helpers.export import llama_cpp
    from helpers.families import load_tokenizer

    tokenizer = load_tokenizer(model)

    class Loaded:
        chat_template = tokenizer.chat_template + (" " if fault == "template" else "")

        def __init__(self, file):
            pass

        def ids(self, text):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids[:-1] if fault == "vocabulary" else ids

        def ends(self, token):
            return fault != "end" or token == tokenizer.eos_token_id

    monkeypatch.setattr(llama_cpp, "LlamaCpp", Loaded)
    reason = {"template": "chat template in f16.gguf", "vocabulary": "reads the vocabulary", "end": "'<end_of_turn>'"}
    assert len(stop_token_ids(tokenizer)) == 2
    with pytest.raises(worker.Refused, match=reason[fault]):
        gguf._check(tmp_path / "f16.gguf", tokenizer)
