"""`make gpu-check`, rehearsed on the CPU with a tiny shape; what it makes of a record."""

import json
import sys
from types import SimpleNamespace

import case
import check
import pytest
import torch
from small import small_tokenizer
from table import newest, table
from weights import REHEARSAL, TRUE, made_up

from helpers import settings
from helpers.base_model import BaseModel
from helpers.families import prepare_tokenizer
from helpers.train import sft
from helpers.train.preflight import check_rows
from helpers.train.shapes import count

MEASURED = {
    "status": "measured",
    "tokens_a_second": 1234.5,
    "share": 0.41,
    "share_with_recomputation": 0.6,
    "peak_gib": 19.0,
    "paged_gib": 1.0,
    "predicted_gib": 21.0,
    "ratio": 1.05,
    "gradient_norms": [1.5, 2.0],
}


def _record(*cases: dict, day: str = "2026-12-01") -> dict:
    return {
        "measured": f"{day}T10:00:00+00:00",
        "commit": "0123456789abcdef",
        "device": {"name": "NVIDIA H100", "memory_gib": 79.6, "driver": "580.1"},
        "versions": {"torch": "2.13.0"},
        "rehearsal": False,
        "matrix": {"tflops": 650.0, "rows": 8192, "dtype": "bfloat16"},
        "cases": list(cases),
    }


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path / "outputs")


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_case_trains_by_the_houses_own_trainer_and_says_how_fast(method, tmp_path):
    found = case.train(method, 1, REHEARSAL, tmp_path)
    assert found["status"] == "measured" and found["predicted_gib"] > 0
    assert (found["tokens_a_step"], found["learned_tokens_a_step"]) == (384, 192)
    assert len(found["losses"]) == case.STEPS and min(found["gradient_norms"]) > 0
    weights = count(REHEARSAL.shape)
    factor = 6 if method == "full" else 4
    per_step = factor * (384 * weights.in_layers + 192 * weights.head)
    assert found["model_tflops"] * found["seconds_a_step"] * 1e12 == pytest.approx(per_step)


def test_a_case_whose_budget_exceeds_the_card_is_skipped_with_the_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(case.budget, "memory_at_hand", lambda device: 10.0)
    monkeypatch.setattr(case, "trainer_of", None)
    found = case.train("full", 1, TRUE, tmp_path)
    assert found["status"] == "skipped" and found["predicted_gib"] > 28
    assert found["why"] == f"the budget is {found['predicted_with_overhead_gib']:.1f} GiB, and there are 10.0"
    assert check.problems(_record({"method": "full", "micro_batch": 1} | found)) == []


def test_a_case_that_runs_out_of_memory_says_so_with_its_budget(tmp_path, monkeypatch):
    def burst(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(sft.OrderedSFTTrainer, "train", burst)
    found = case.train("lora", 1, REHEARSAL, tmp_path)
    assert found["status"] == "out of memory" and found["predicted_gib"] > 0
    assert found["why"].startswith("Out of memory at step 0: method lora with batch_size=1")


def test_paged_state_is_counted_beside_what_the_allocator_holds(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * case.GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 4 * case.GIB)
    paged, resident = torch.zeros(2**20, dtype=torch.uint8), torch.zeros(2**20)
    paged.is_paged = True
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight])
    optimizer.state[weight] = {"step": 1, "state1": paged, "qmap1": resident}
    trainer = SimpleNamespace(optimizer=optimizer)
    assert case.memory(trainer, "cuda") == {"peak_gib": 3.0, "reserved_gib": 4.0, "paged_gib": 2**20 / case.GIB}
    assert case.memory(trainer, "cpu") == {}


def test_the_whole_check_runs_each_case_in_a_process_of_its_own():
    record = check.check(rehearse=True, methods=("dpo",), micro_batches=(1,))
    (only,) = record["cases"]
    assert only["status"] == "measured" and only["tokens_a_step"] == 2 * 384
    assert only["share"] == only["model_tflops"] / record["matrix"]["tflops"] > 0
    assert check.problems(record) == []
    assert "| DPO | 1 |" in table(record) and "A rehearsal with a tiny shape, no measurement: CPU" in table(record)
    assert record["versions"]["torch"] == torch.__version__
    assert check.run_case("dpo", 1, rehearse=True, seconds=0)["status"] == "out of time"


def test_no_token_of_an_example_is_padding(tmp_path, card):
    tokenizer = prepare_tokenizer(small_tokenizer())
    cfg = case.settings_of("dpo", 1, REHEARSAL)
    work = case.work_of("dpo", cfg, REHEARSAL, tokenizer, card)
    trainer = case.trainer_of("dpo", cfg, REHEARSAL, tokenizer, card, work, tmp_path)
    rows = list(trainer.train_dataset)
    for answer in ("chosen_ids", "rejected_ids"):
        assert {len(row["prompt_ids"]) + len(row[answer]) for row in rows} == {REHEARSAL.context}
        assert {2 * len(row[answer]) for row in rows} == {work.learned}
    examples = case.work_of("lora", cfg, TRUE, tokenizer, card).examples
    check_rows(tokenizer, examples, TRUE.context)
    assert {len(row.input_ids) for row in examples} == {2048}
    assert max(max(row.input_ids) for row in examples) < 152064


def test_made_up_weights_are_the_same_each_time_and_of_the_size_that_is_asked_for(tmp_path):
    cfg, nowhere = case.settings_of("full", 1, REHEARSAL), BaseModel("random", tmp_path, "", "")
    with made_up(REHEARSAL.shape):
        one, other = (sft.load_base(nowhere, cfg, full=True) for _ in range(2))
    assert one.num_parameters() == count(REHEARSAL.shape).total
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    assert float(one.lm_head.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(one.lm_head.weight, one.model.embed_tokens.weight)


def test_what_is_wrong_is_said():
    good = {"method": "lora", "micro_batch": 1} | MEASURED
    assert check.problems(_record(good)) == []
    still, high = good | {"gradient_norms": [1.0, 0.0]}, good | {"ratio": 1.2, "predicted_gib": 24.0}
    burst = {"method": "dpo", "micro_batch": 4, "status": "out of memory", "why": "tried 2 GiB", "predicted_gib": 40.0}
    broken = {"method": "full", "micro_batch": 1, "status": "failed", "why": "ValueError: no"}
    assert check.problems(_record(still, high, burst, broken)) == [
        "lora at micro-batch 1: a gradient norm is not above 0: [1.0, 0.0].",
        "lora at micro-batch 1: the budget is 24.0 GiB, 1.20 of the measured peak.",
        "dpo at micro-batch 4: out of memory, where the budget is 40.0 GiB: tried 2 GiB.",
        "full at micro-batch 1: failed, ValueError: no.",
    ]


def test_the_table_is_made_from_the_newest_record_or_says_not_measured(tmp_path):
    assert newest(tmp_path) is None
    empty = table(newest(tmp_path))
    assert empty.count("| not measured |") == 8 * 3 and "`make gpu-check` on a machine with one" in empty
    skipped = {"method": "full", "micro_batch": 4, "status": "skipped", "why": "…", "predicted_gib": 61.2}
    measured = {"method": "qlora", "micro_batch": 1} | MEASURED
    for name, day in (("b", "2026-12-01"), ("a", "2026-12-02")):
        (tmp_path / f"{name}.json").write_text(json.dumps(_record(measured, skipped, day=day)))
    text = table(newest(tmp_path))
    assert "| QLoRA | 1 | 1,234 | 41% | 60% | 20.0 GiB | 21.0 GiB | 2 |" in text
    assert "| full fine-tuning | 4 | skipped | – | – | – | 61.2 GiB | – |" in text
    assert "NVIDIA H100, 80 GiB, driver 580.1; 650 TFLOP/s measured on 8192² matrices in bfloat16; 2026-12-02" in text


def test_without_a_gpu_it_says_so_and_fails(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["check.py"])
    monkeypatch.setattr("helpers.settings.subprocess.run", gone)
    assert check.main() == 1
    assert capsys.readouterr().err.startswith("Nothing was measured, because there is no CUDA GPU. Here it can be")


def gone(command, **_):
    raise FileNotFoundError(command[0])


def test_what_is_measured_is_kept_case_by_case(monkeypatch):
    monkeypatch.setattr(check, "measure_matrix", lambda rehearse: {"tflops": 1.0, "dtype": "float32"})
    kept = []

    def broken(method, micro_batch, rehearse, seconds):
        if micro_batch == 4:
            raise KeyboardInterrupt
        return {"status": "skipped", "why": "it is too large"}

    monkeypatch.setattr(check, "run_case", broken)
    with pytest.raises(KeyboardInterrupt):
        check.check(rehearse=True, keep=lambda record: kept.append(json.dumps(record)))
    (only,) = kept
    assert [case["micro_batch"] for case in json.loads(only)["cases"]] == [1] and json.loads(only)["seconds"] >= 0


def test_without_a_compiler_or_its_headers_nothing_is_begun(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["check.py"])
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    for found, word in (("/usr/bin/gcc", "Python.h is missing"), (None, "A C compiler is missing")):
        monkeypatch.setattr("shutil.which", lambda _, found=found: found)
        monkeypatch.delenv("CC", raising=False)
        assert check.main() == 1
        assert word in capsys.readouterr().err


def test_what_goes_forward_again_leaves_out_what_nothing_is_kept_behind():
    work, weights = SimpleNamespace(tokens=10, learned=4), count(TRUE.shape)
    adapted, full = (case.recomputed(case.OPERATIONS[method], TRUE, work) for method in ("lora", "full"))
    assert adapted == 2 * (10 * weights.in_layers + 4 * weights.head)
    assert adapted - full == 2 * 10 * 28 * 18944 * 3584
