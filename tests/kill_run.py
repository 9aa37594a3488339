"""A training run in a process of its own, to be killed: see test_kill.py."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

from helpers import settings
from helpers.base_model import resolve_base_model
from helpers.persona import load_persona
from helpers.supervision import supervise
from helpers.train import dpo, preferences, sft

STEPS, KEPT = 8, ("loss", "grad_norm", "eval_loss", "mean_token_accuracy", "rewards/margins")
GIVEN = {
    "profile": "smoke",
    "max_steps": STEPS,
    "save_steps": 2,
    "batch_size": 2,
    "gradient_accumulation": 2,
    "patience": STEPS,  # measures the validation loss at each checkpoint, and never stops
    "max_length": 4096,
}
PAIRS = settings.ROOT / "data" / "preferences" / "sakura"


def train(method: str, base: str, folder: Path, die_after: int = 0, die_at: int = 0, die_in: str = "") -> None:
    """Run `method`, "lora", "full" or "dpo", to its end, on from what `folder` holds, and save what was trained in its
    folder `trained`. Log entries are appended to `log.jsonl`. The process kills itself when it has logged the loss of
    step `die_after`, or at its `die_at`-th change to a file of the checkpoints, or of the one named `die_in`."""
    torch.set_num_threads(1)
    given = GIVEN if method == "dpo" else GIVEN | {"method": method}
    cfg = settings.resolve("05_dpo" if method == "dpo" else "03_lora", given)
    cfg.hardware = dataclasses.replace(cfg.hardware, dtype=torch.float32)
    cfg.folder = folder
    make = _dpo_trainer if method == "dpo" else _sft_trainer
    trainer, tokenizer = make(base, cfg, folder / "checkpoints")
    trainer.args.logging_steps = 1
    trainer.add_callback(_Log(folder / "log.jsonl", die_after))
    sys.addaudithook(_Death(folder / "checkpoints" / die_in, die_at))
    sft.run(trainer, "cpu")
    (dpo if method == "dpo" else sft).save(trainer, tokenizer, folder / "trained")


def _lora(**options) -> LoraConfig:
    return LoraConfig(r=4, lora_dropout=0.2, target_modules="all-linear", task_type="CAUSAL_LM", **options)


def _sft_trainer(name: str, cfg, folder: Path):
    base = resolve_base_model(name)
    tokenizer = base.load_tokenizer()
    said = ["ただいま", "疲れた", "ねむい"]
    rows = [
        supervise(
            tokenizer,
            [{"role": "user", "content": said[n % 3]}, {"role": "assistant", "content": "おかえり" * (n + 1)}],
        )
        for n in range(13)  # three epochs and a bit
    ]
    full = cfg.method == "full"
    model = sft.load_base(base, cfg, full=full)
    return sft.make_trainer(model, tokenizer, rows, rows[:3], cfg, folder, None if full else _lora()), tokenizer


def _dpo_trainer(name: str, cfg, folder: Path):
    base, card = resolve_base_model(name), load_persona()
    tokenizer = base.load_tokenizer()
    adapter = folder.parent / "sft"
    if not adapter.exists():
        torch.manual_seed(0)
        get_peft_model(sft.load_base(base, cfg), _lora(init_lora_weights=False)).save_pretrained(adapter)
    pairs, _ = preferences.read_preferences(PAIRS, card, folder.parent / "bad.jsonl")
    policy = dpo.load_policy(base, adapter, cfg)
    return dpo.make_trainer(policy, tokenizer, pairs[:13], pairs[13:15], card, cfg, folder), tokenizer


class _Log(TrainerCallback):
    def __init__(self, file: Path, last: int):
        self.file, self.last = file, last

    def on_log(self, args, state, control, logs=None, **kwargs):
        kept = {key: float(logs[key]) for key in KEPT if key in logs}
        if kept:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step} | kept) + "\n")
        if "loss" in kept and state.global_step == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


class _Death:
    """An audit hook that ends the process by SIGKILL when it is about to make, write, rename or delete its `at`-th file
    or folder in `folder`. A file that it was about to write is left empty, as between opening and writing."""

    CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")

    def __init__(self, folder: Path, at: int):
        self.folder, self.left = folder, at

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.left or event not in self.CHANGES or not isinstance(arguments[0], str | Path):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        inside = arguments[-1] if event in ("os.remove", "os.rmdir") else -1  # rmtree names files by their folder's fd
        path = Path(os.readlink(f"/proc/self/fd/{inside}") if inside != -1 else "", arguments[0]).absolute()
        if self.folder not in path.parents:
            return
        self.left -= 1
        if self.left:
            return
        if event == "open":
            os.close(os.open(path, arguments[2], 0o600))
        os.kill(os.getpid(), signal.SIGKILL)
