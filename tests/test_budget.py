"""The memory budget: weights counted against published totals, peaks against measured ones."""

import dataclasses
import json
import os
import subprocess
import sys

import measure_memory
import pytest
from transformers import AutoModelForCausalLM

from helpers import settings
from helpers.families import FAMILIES
from helpers.train import budget, footprint
from helpers.train.shapes import count, published_shape, shape_of

LINEAR = FAMILIES["qwen2.5"].lora_targets
# As each checkpoint's page on the hub has it.
PUBLISHED_TOTALS = {
    "google/gemma-3-270m-it": 268_098_176,
    "google/gemma-3-1b-it": 999_885_952,
    "google/gemma-2b-it": 2_506_172_416,
    "google/gemma-7b-it": 8_537_680_896,
    "google/gemma-2-2b-it": 2_614_341_888,
    "google/gemma-2-9b-it": 9_241_705_984,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "01-ai/Yi-1.5-6B-Chat": 6_061_035_520,
    "01-ai/Yi-1.5-9B-Chat": 8_829_407_232,
    "01-ai/Yi-1.5-34B-Chat": 34_388_917_248,
    "THUDM/chatglm3-6b": 6_243_584_000,
    "baichuan-inc/Baichuan2-7B-Chat": 7_505_973_248,
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "meta-llama/Meta-Llama-3-70B-Instruct": 70_553_706_496,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "mistralai/Mistral-Nemo-Instruct-2407": 12_247_782_400,
    "meta-llama/Llama-2-7b-chat-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-chat-hf": 13_015_864_320,
}


def test_every_recommended_checkpoint_has_its_true_shape():
    for family in FAMILIES.values():
        for checkpoint, billions in family.checkpoints.items():
            shape = published_shape(checkpoint)
            assert json.loads(shape.config)["model_type"] in family.architectures
            assert count(shape).total / 1e9 == pytest.approx(billions, abs=0.051), checkpoint
    for checkpoint, total in PUBLISHED_TOTALS.items():
        assert count(published_shape(checkpoint)).total == total, checkpoint


def test_a_model_at_hand_is_counted_as_it_is(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny.path)
    shape = shape_of(tiny.path)
    assert count(shape).total == model.num_parameters()
    assert (shape.layers, shape.kinds()) == (2, 2)


def _config(model_type: str, hidden: int, layers: int, heads: int, kv: int, inner: int, vocabulary: int, **more):
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    sizes = dict(zip(names, (hidden, layers, heads, kv, inner), strict=True))
    return {"model_type": model_type, "vocab_size": vocabulary} | sizes | more


QWEN = _config("qwen2", 256, 6, 8, 2, 1024, 8192)
LLAMA = _config("llama", 384, 8, 6, 6, 1024, 16000)
GLM = _config("glm", 256, 4, 4, 2, 700, 8192, head_dim=64, attention_bias=True, pad_token_id=0, eos_token_id=2)
# The embedded model's vocabulary.
GEMMA = _config("gemma3_text", 256, 6, 4, 1, 768, 262144, head_dim=64, sliding_window=128)
RUNS = [
    {"config": QWEN, "micro_batch": 4},
    {"config": QWEN, "micro_batch": 2, "context": 1024, "checkpointing": True},
    {"config": QWEN, "micro_batch": 4, "packing": True},
    {"config": QWEN, "micro_batch": 4, "lora_r": 512},
    {"config": GEMMA, "micro_batch": 4},
    {"config": LLAMA, "micro_batch": 4, "context": 512, "attention": "sdpa"},
    {"config": LLAMA, "micro_batch": 1, "accumulation": 2, "method": "full"},
    {"config": LLAMA, "micro_batch": 4, "method": "full", "checkpointing": True},
    {"config": GLM, "micro_batch": 4, "context": 384, "targets": FAMILIES["chatglm3"].lora_targets},
]
DEFAULTS = {"targets": LINEAR, "lora_r": 8, "method": "lora", "context": 256, "checkpointing": False, "learned": 0.25}


def test_predicted_peak_is_within_a_tenth_of_the_measured_one(tiny):
    """Real SFT steps in float32 on the CPU, peak resident memory of a process each. glibc gives every block back at
    once here, so that what is resident is what is held."""
    runs = [DEFAULTS | run | {"tokenizer": str(tiny.path)} for run in RUNS]
    returned = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, measure_memory.__file__],
        input=json.dumps(runs),
        env=os.environ | returned,
        cwd=settings.ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    ratios = []
    for run, measured in zip(runs, json.loads(answer.stdout), strict=True):
        predicted = budget.predict(measure_memory.plan_of(run))
        assert min(predicted.parts.values()) >= 0
        ratios.append(predicted.gib * budget.GIB / measured)
    print("predicted / measured:", " ".join(f"{ratio:.3f}" for ratio in ratios))
    assert all(0.9 < ratio < 1.1 for ratio in ratios), ratios


@pytest.fixture(scope="module")
def seven_billion() -> budget.Plan:
    return budget.published_plan("Qwen/Qwen2.5-7B-Instruct", "lora", 2048, 4)


def test_parts_of_a_7b_follow_from_its_weights_and_the_method(seven_billion):
    weights = count(seven_billion.shape)
    parts = {
        method: budget.predict(dataclasses.replace(seven_billion, method=method)).parts for method in budget.METHODS
    }
    adapter = 4 * 64 * weights.layers * sum(rows + columns for rows, columns in weights.linear)
    assert parts["lora"]["weights"] == 2 * weights.total
    assert parts["lora"]["adapter"] == adapter and parts["lora"]["optimizer"] == 2 * adapter
    assert parts["qlora"]["weights"] < parts["int8"]["weights"] < parts["lora"]["weights"]
    assert parts["qlora"]["adapter"] == adapter / 2
    assert parts["dpo"]["adapter"] == 2 * adapter, "the frozen copy of the SFT adapter"
    assert parts["dpo"]["activations"] > 1.8 * parts["lora"]["activations"], "chosen and rejected in one batch"
    assert parts["full"]["weights"] == 2 * weights.total and parts["full"]["adapter"] == 0


def test_what_costs_memory_costs_it(seven_billion):
    def gib(**changes):
        return budget.predict(dataclasses.replace(seven_billion, **changes)).gib

    least = gib(micro_batch=1)
    assert least < gib(micro_batch=2) < gib()
    assert gib(micro_batch=1, context=512) < least < gib(micro_batch=1, checkpointing=False)
    assert gib(lora_r=8) < gib()
    with pytest.raises(ValueError, match="no training method 'magic': name one of lora, qlora"):
        budget.published_plan("Qwen/Qwen2.5-7B-Instruct", "magic", 2048, 1)


def _layer(device: str, **changes) -> int:
    run = {"config": QWEN, "micro_batch": 2, "device": device, "lora_dropout": 0.1} | changes
    plan = measure_memory.plan_of(DEFAULTS | run)
    return footprint.dry_run(plan.shape, budget._step(plan)).layer


def test_of_dropout_a_cpu_keeps_a_number_for_each_value_a_gpu_a_byte_and_dpo_nothing():
    read = 2 * 256 * (6 * QWEN["hidden_size"] + QWEN["intermediate_size"])  # by the adapters of a layer's 7 matrices
    assert _layer("cpu") - _layer("cuda") == (4 - 1) * read
    for device in ("cpu", "cuda"):
        assert _layer(device, lora_dropout=0.0) < _layer(device)
        assert _layer(device, method="dpo") == _layer(device, method="dpo", lora_dropout=0.0)


def test_no_gradient_waits_for_the_first_micro_batch_and_all_for_the_others(seven_billion):
    parts = {n: budget.predict(dataclasses.replace(seven_billion, accumulation=n)).parts for n in (1, 2)}
    assert parts[1]["gradients"] == 0 and parts[2] == parts[1] | {"gradients": parts[1]["adapter"]}


def test_settings_that_fit_are_three_ways_out_and_do_fit(seven_billion):
    card = budget.predict(seven_billion).gib - 2.5
    found = budget.settings_that_fit(seven_billion, card)
    assert len(found) == 3 and all(option.fits(card) for option in found)
    batch, context, method = (option.plan for option in found)
    assert batch.micro_batch < 4 and batch.micro_batch * batch.accumulation == 4
    assert batch.context == 2048 and batch.method == "lora"
    assert context.context < 2048 and context.micro_batch == 4
    assert method.method in budget.THRIFTIER["lora"]
    assert budget.settings_that_fit(seven_billion, 2) == []


def test_a_stored_dry_run_is_what_a_new_one_finds(seven_billion):
    plan = dataclasses.replace(seven_billion, micro_batch=1)
    case = plan.shape, budget._step(plan)
    assert footprint._stored()[footprint._key(*case)] == list(dataclasses.astuple(footprint.dry_run(*case)))


def test_recommend_knows_every_family_and_the_guides_figures_are_wrong():
    rows = budget.recommend(24, methods=("qlora",))
    assert {row.checkpoint for row in rows} == {c for family in FAMILIES.values() for c in family.checkpoints}
    fits = {row.checkpoint: row.fits for row in rows}
    assert fits["Qwen/Qwen2.5-7B-Instruct"] and not fits["meta-llama/Meta-Llama-3-70B-Instruct"]
    assert all(row.fits == (row.gib <= 24) for row in rows)
    for claim, predicted in budget.check_guide():
        assert predicted.gib > claim.gib, claim.text


def test_a_family_whose_shapes_nobody_wrote_down_is_left_out_of_the_table(monkeypatch):
    added = dataclasses.replace(FAMILIES["qwen2.5"], name="new", checkpoints={"somebody/new-1b": 1.0})
    before = budget.recommend(24, methods=("qlora",))
    monkeypatch.setitem(FAMILIES, "new", added)
    assert budget.recommend(24, methods=("qlora",)) == before
    with pytest.raises(KeyError, match="somebody/new-1b"):
        budget.published_plan("somebody/new-1b", "qlora", 2048, 1)
