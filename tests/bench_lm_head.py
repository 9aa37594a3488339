"""`make bench`: a training step with TRL's own LM head and with the direct one, in one run, as a ratio.

The same model (the embedded Gemma 3 270M), the same rows, the same seed; steps of both sides alternate, so that
whatever else the machine does falls on both.
"""

import statistics
import time
from contextlib import nullcontext

import torch
from peft import LoraConfig

from helpers import settings
from helpers.base_model import resolve_base_model
from helpers.conversations import read_conversations
from helpers.persona import load_persona
from helpers.supervision import supervise_all
from helpers.train import sft
from helpers.train.lm_head import direct_lm_head

STEPS = 3


def main() -> None:
    cfg = settings.resolve("03_lora", {"profile": "cpu"})
    base = resolve_base_model(cfg.base_model)
    tokenizer = base.load_tokenizer()
    dialogues = read_conversations(settings.ROOT / "data" / "dialogues" / "sakura").conversations
    rows = supervise_all(tokenizer, dialogues[: cfg.batch_size], load_persona())
    lora = LoraConfig(r=cfg.lora_r, lora_alpha=cfg.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = sft.make_trainer(sft.load_base(base, cfg), tokenizer, rows, rows, cfg, cfg.folder / "bench", lora)
    batch = trainer.data_collator(list(trainer.train_dataset))
    sides = {"TRL's own head": nullcontext, "direct head": lambda: direct_lm_head(cfg.hardware.device)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, float] = {}
    for step in range(STEPS + 1):
        for name, context in sides.items():
            began = time.perf_counter()
            with context():
                loss = trainer.compute_loss(trainer.model, dict(batch))
                loss.backward()
            trainer.model.zero_grad()
            if step:
                seconds[name].append(time.perf_counter() - began)
            losses[name] = float(loss)
    tokens = sum(len(r.input_ids) for r in rows)
    print(f"{len(rows)} dialogues, {tokens} tokens, {cfg.hardware.dtype}, {torch.get_num_threads()} threads")
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(f"{name:<16} {middle:6.2f} s a step  {tokens / middle:7.1f} tokens/s  loss {losses[name]:.4f}")
    slow, fast = (statistics.median(taken) for taken in seconds.values())
    print(f"ratio {slow / fast:.2f}")


if __name__ == "__main__":
    main()
