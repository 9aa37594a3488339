"""Peak resident memory of real SFT steps on random models, each in a process of its own.

In: a JSON list of runs on standard input. Out: for each, bytes above what the process held after the same steps on a
model next to nothing, as a JSON list on standard output.
"""

import ctypes
import dataclasses
import gc
import json
import multiprocessing
import os
import re
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import settings
from helpers.quiet import hide_gptqmodel
from helpers.supervision import Row
from helpers.train import sft
from helpers.train.budget import Plan
from helpers.train.shapes import Shape


def resident(what: str) -> int:
    """Bytes of this process: VmRSS (now) or VmHWM (at most)."""
    return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def plan_of(run: dict) -> Plan:
    values = {k: v for k, v in run.items() if k not in ("config", "tokenizer")} | {"targets": tuple(run["targets"])}
    fixed = {"device": "cpu", "dtype": torch.float32, "attention": "eager", "overhead": 0.0}
    return Plan(shape=Shape("random", json.dumps(run["config"], sort_keys=True)), **(fixed | values))


def train(run: dict, tokenizer, shrink: bool = False) -> None:
    plan = plan_of(run)
    config = plan.shape.configuration(1 if shrink else None)
    context = 16 if shrink else plan.context
    if shrink:
        config.hidden_size, config.intermediate_size, config.vocab_size = 32, 32, 512
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    length = context // 2 if plan.packing else context
    learned = max(2, round(length * plan.learned))
    ids = [tokenizer.bos_token_id, *[200] * (length - learned - 1), *[300] * (learned - 1), end]
    row, together = Row(ids, [0] * (length - learned) + [1] * learned), context // length
    rows = [row] * (2 * plan.micro_batch * plan.accumulation * together)
    cfg = settings.resolve("03_lora", {"profile": "smoke", "max_steps": 2, "max_length": context})
    cfg.packing = plan.packing
    cfg.batch_size, cfg.gradient_accumulation = plan.micro_batch, plan.accumulation
    cfg.hardware = dataclasses.replace(cfg.hardware, device="cpu", dtype=plan.dtype, attention=plan.attention)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=plan.attention, dtype=plan.dtype)
    lora = None
    if plan.method != "full":
        lora = LoraConfig(
            r=plan.lora_r, lora_dropout=plan.lora_dropout, target_modules=list(plan.targets), task_type="CAUSAL_LM"
        )
    with tempfile.TemporaryDirectory() as folder:
        trainer = sft.make_trainer(model, tokenizer, rows, rows[:1], cfg, Path(folder), lora)
        trainer.args.save_strategy, trainer.args.gradient_checkpointing = "no", plan.checkpointing
        if plan.checkpointing and lora:
            trainer.model.enable_input_require_grads()
        assert sft.run(trainer, "cpu") == 2


def measure(run: dict, tokenizer, answer) -> None:
    torch.set_num_threads(1)
    # What libraries load when they are first used is not the run's own.
    train(run, tokenizer, shrink=True)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    train(run, tokenizer)
    answer.put(resident("VmHWM") - before)


def main() -> None:
    hide_gptqmodel()
    runs, stdout = json.load(sys.stdin), os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    tokenizer = AutoTokenizer.from_pretrained(runs[0]["tokenizer"])
    fork, measured = multiprocessing.get_context("fork"), []
    for run in runs:
        answer = fork.SimpleQueue()
        process = fork.Process(target=measure, args=(run, tokenizer, answer))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{run}: exit {process.exitcode}")
        measured.append(answer.get())
    os.write(stdout, json.dumps(measured).encode())


if __name__ == "__main__":
    main()
