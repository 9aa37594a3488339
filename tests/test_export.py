"""The export room: merged weights speak as the adapter did, and what is wrong is refused in one sentence."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from helpers.conversations import Conversation
from helpers.export import merge, parity, perplexity, quantize, worker
from helpers.families import stop_token_ids
from helpers.records import Mismatch
from helpers.supervision import supervise_all


@pytest.fixture(scope="module")
def rows(tokenizer, card):
    talks = (
        ["ただいま", "おかえり😊"],
        ["元気？", "うん、元気だよ。", "よかった", "ありがとね"],
        ["おやすみ", "また明日ね🌙"],
    )
    chats = [
        Conversation(messages=[{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(talk)])
        for talk in talks
    ]
    return supervise_all(tokenizer, chats, card)


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
    """A random LoRA on all linear layers, large enough to change what is said."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    get_peft_model(model, settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def merged(tiny, adapter, tmp_path_factory):
    model = merge.merge(merge.load_adapted(tiny, adapter, tiny.sha256))
    return merge.save_merged(model, tiny, tmp_path_factory.mktemp("export") / "merged")


def test_merged_in_memory_equals_adapter(tiny, adapter, rows):
    adapted = merge.load_adapted(tiny, adapter, tiny.sha256)
    plain = merge.merge(merge.load_adapted(tiny, adapter, tiny.sha256))
    base = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    found = parity.compare(adapted, plain, rows)
    assert found.max_abs <= 1e-4
    assert found.same_greedy == 1
    assert found.positions == sum(len(r.supervised) for r in rows)
    assert sum(found.histogram) == found.positions * base.config.vocab_size
    assert parity.compare(adapted, base, rows).max_abs > 1e-2, "the random adapter must matter, or parity shows nothing"


def test_merged_folder_is_complete(tiny, merged, tokenizer):
    assert (merged / "model.safetensors").exists()
    assert not list(merged.glob("*.bin")) and not list(merged.parent.glob(".*part"))
    assert not (merged / "adapter_config.json").exists()
    assert AutoModelForCausalLM.from_pretrained(merged).dtype == torch.bfloat16, "the dtype in which the base is stored"
    stops = GenerationConfig.from_pretrained(merged).eos_token_id
    assert stops == stop_token_ids(tokenizer)
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") in stops
    assert AutoTokenizer.from_pretrained(merged).chat_template == tokenizer.chat_template


def test_saving_costs_only_the_rounding(tiny, adapter, merged, rows):
    adapted = merge.load_adapted(tiny, adapter, tiny.sha256)
    saved = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    assert 0 < parity.compare(adapted, saved, rows).max_abs < 0.1


def test_adapter_of_another_base_is_refused(tiny, adapter):
    with pytest.raises(Mismatch, match="another base"):
        merge.load_adapted(tiny, adapter, "0" * 64)


def test_damaged_adapters_are_refused(tiny, adapter, tmp_path):
    copy = tmp_path / "adapter"
    shutil.copytree(adapter, copy)
    weights = copy / merge.WEIGHTS
    whole = weights.read_bytes()

    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        merge.load_adapted(tiny, copy, tiny.sha256)

    weights.write_bytes(whole)
    tensors = load_file(weights)
    first = min(tensors)
    save_file({k: v for k, v in tensors.items() if k != first}, weights)
    with pytest.raises(Mismatch, match="1 of its tensors"):
        merge.load_adapted(tiny, copy, tiny.sha256)

    save_file(tensors | {first: torch.zeros(3, 3)}, weights)
    with pytest.raises(Mismatch, match="does not fit"):
        merge.load_adapted(tiny, copy, tiny.sha256)

    save_file(tensors | {first: torch.full_like(tensors[first], math.nan)}, weights)
    with pytest.raises(ValueError, match=r"(?i)nan"):
        merge.merge(merge.load_adapted(tiny, copy, tiny.sha256))

    weights.unlink()
    with pytest.raises(FileNotFoundError, match="holds no adapter"):
        merge.load_adapted(tiny, copy, tiny.sha256)


def test_quantized_base_is_refused(tiny, adapter, tmp_path):
    from helpers.base_model import BaseModel

    config = json.loads((tiny.path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = BaseModel("four-bit", tmp_path, tiny.sha256, "")
    with pytest.raises(ValueError, match="is quantized"):
        merge.load_adapted(base, adapter, tiny.sha256)


def test_perplexity_is_the_hand_computed_one(tiny, rows):
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32).eval()
    loss, tokens = 0.0, 0
    for row in rows:
        with torch.inference_mode():
            chances = model(torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        for position, keep in enumerate(row.assistant_masks):
            if keep:
                loss -= chances[position - 1, row.input_ids[position]].item()
                tokens += 1
    for batch_size in (1, 3):
        found = perplexity.perplexity(model, rows, batch_size)
        assert found.tokens == tokens
        assert found.value == pytest.approx(math.exp(loss / tokens), rel=1e-4)


def test_perplexity_without_supervised_tokens_is_an_error(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    with pytest.raises(ValueError, match="no supervised token"):
        perplexity.perplexity(model, [])


def test_group_size_divides_every_layer(tiny):
    assert quantize.group_size(tiny.path) == 64


def test_failed_worker_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(worker.WorkerError, match=r"(?s)a job that fails: .* code 2\..*usage: "):
        worker.run("json.tool", {}, tmp_path / "job.log", "a job that fails")


def test_what_a_cpu_widened_is_stored_in_the_models_own_dtype_again(tmp_path):
    made = {"embed": torch.randn(4, 8), "qweight": torch.ones(2, 2, dtype=torch.int32), "scales": torch.ones(2).half()}
    save_file(made, tmp_path / "made.safetensors")
    quantize._move(tmp_path / "made.safetensors", tmp_path / "own.safetensors", torch.bfloat16)
    own = load_file(tmp_path / "own.safetensors")
    assert {name: t.dtype for name, t in own.items()} == {
        "embed": torch.bfloat16,
        "qweight": torch.int32,
        "scales": torch.float16,
    }
    assert torch.equal(own["embed"], made["embed"].bfloat16())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", sorted(quantize.SCHEMES))
def test_quantized_folder_is_four_bit_and_measurable(scheme, merged, rows, tmp_path):
    made = quantize.SCHEMES[scheme](merged, tmp_path / scheme, rows, tmp_path / f"{scheme}.log")
    config = json.loads((made.folder / "config.json").read_text())
    assert config["quantization_config"]["bits"] == 4
    assert config["quantization_config"]["group_size"] == made.group_size == 64
    assert (
        GenerationConfig.from_pretrained(made.folder).eos_token_id
        == GenerationConfig.from_pretrained(merged).eos_token_id
    )
    assert made.bytes < sum(f.stat().st_size for f in merged.glob("*.safetensors"))
    assert perplexity.perplexity_of_folder(made.folder, rows, tmp_path / "ppl.log").value > 1
