"""What silently goes wrong elsewhere: packing that leaks, accumulation that weighs wrongly."""

import dataclasses

import pytest
import torch
from peft import LoraConfig

from helpers import settings
from helpers.supervision import supervise
from helpers.train import sft
from helpers.train.lm_head import direct_lm_head

TALKS = [
    [("ただいま", "おかえり！")],
    [("ねえ聞いて、今日バイトでさ、皿を三枚も割っちゃって", "えっ、けがはない？まずそこ！"), ("ない", "よかった…")],
    [("おやすみ", "ん、おやすみ。いい夢見てね")],
    [("あのさ", "うん？"), ("やっぱりいいや", "気になるじゃん、言ってよ〜"), ("すきだよ", "…え、いま、なんて？")],
]


def _exchange(said: str, reply: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": said}, {"role": "assistant", "content": reply}]


@pytest.fixture
def rows(tokenizer):
    chats = [[message for said, reply in talk for message in _exchange(said, reply)] for talk in TALKS]
    found = [supervise(tokenizer, chat) for chat in chats]
    assert len({len(row.input_ids) for row in found}) == len(found), "unequal lengths are the point"
    return found


@pytest.fixture
def trainer_with(tiny, tokenizer, rows, tmp_path):
    def make(attention: str = "eager", folder: str = "run", **given):
        cfg = settings.resolve("03_lora", {"profile": "smoke", "max_steps": 1} | given)
        cfg.hardware = dataclasses.replace(cfg.hardware, dtype=torch.float32, attention=attention)
        torch.manual_seed(0)
        lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        model = sft.load_base(tiny, cfg)
        return sft.make_trainer(model, tokenizer, rows, rows, cfg, tmp_path / folder, lora)

    return make


def _loss_and_gradients(trainer) -> tuple[float, dict[str, torch.Tensor]]:
    """Of all rows as one step, by the trainer's own collator and loss."""
    batches = list(trainer.get_train_dataloader())
    items = sum((batch["labels"][:, 1:] != -100).sum() for batch in batches)
    total = 0.0
    trainer.model.train()
    with direct_lm_head("cpu"):
        for batch in batches:
            loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=items)
            loss.backward()
            total += float(loss)
    return total, {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_dialogues_neither_see_nor_move_each_other(trainer_with, attention):
    plain = _loss_and_gradients(trainer_with("eager", batch_size=1))
    for batch_size in (1, 2):
        packed = trainer_with(attention, packing=True, batch_size=batch_size)
        first = next(iter(packed.get_train_dataloader()))
        assert (first["position_ids"] == 0).sum() > 1, "several dialogues must be in one row"
        loss, gradients = _loss_and_gradients(packed)
        assert loss == pytest.approx(plain[0], rel=1e-5)
        assert gradients.keys() == plain[1].keys()
        for name, gradient in gradients.items():
            assert (gradient - plain[1][name]).norm() <= 1e-4 * plain[1][name].norm(), name
    leaking = {key: value for key, value in first.items() if key != "position_ids"}
    with direct_lm_head("cpu"), torch.no_grad():
        right = packed.compute_loss(packed.model, dict(first))
        wrong = packed.compute_loss(packed.model, leaking | {"attention_mask": torch.ones_like(leaking["input_ids"])})
    assert abs(float(wrong - right)) > 1e-4, "the comparison above would have seen a leak"


@pytest.mark.parametrize("packing", [False, True])
def test_accumulated_micro_batches_are_one_large_batch(trainer_with, rows, packing):
    # No longer than this, the packed dialogues fill more rows than one.
    given = {"packing": packing, "max_length": max(len(row.input_ids) for row in rows)}
    given |= {"learning_rate": 1.0, "patience": 0}
    stepped = []
    for batch_size, accumulation in ((4, 1), (2, 2), (1, 4)):
        # A folder each: in one, the second would find the first one's last checkpoint, and train nothing.
        folder = f"run-{batch_size}"
        trainer = trainer_with(folder=folder, batch_size=batch_size, gradient_accumulation=accumulation, **given)
        assert 2 < len(trainer.train_dataset) <= 4
        assert (len(trainer.train_dataset) < len(rows)) == packing
        trainer.args.optim, trainer.args.max_grad_norm, trainer.args.warmup_steps = "sgd", 0.0, 0
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
        assert sft.run(trainer, "cpu") == 1
        stepped.append({n: trainer.model.get_parameter(n).detach() - weight for n, weight in before.items()})
    for other in stepped[1:]:
        for name, move in other.items():
            assert (move - stepped[0][name]).norm() <= 1e-4 * stepped[0][name].norm() > 0, name
