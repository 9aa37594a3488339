"""DPO's losses against formulas written by hand, and the reference's cache against the reference itself."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small import small_base
from trl.trainer.utils import use_adapter

from helpers import settings
from helpers.data.augmentation import read_counterfactuals
from helpers.train import budget, dpo, losses, preferences, reference, sft
from helpers.train.lm_head import direct_lm_head
from helpers.train.out_of_memory import OutOfMemory, plan_of

PAIRS = settings.ROOT / "data" / "preferences" / "sakura"


@pytest.fixture(scope="module")
def pairs(card, tmp_path_factory):
    found, _ = preferences.read_preferences(PAIRS, card, tmp_path_factory.mktemp("bad") / "bad.jsonl")
    too_long = next(p for p in found if p.fault == "too_long")
    return [too_long, found[0], found[1], found[2]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer(base):
    return base.load_tokenizer()


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A function from given parameters to settings of 05 in float32."""
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)

    def make(**given):
        chosen = settings.resolve("05_dpo", {"profile": "smoke", "batch_size": 2, "max_length": 4096} | given)
        chosen.hardware = dataclasses.replace(chosen.hardware, dtype=torch.float32)
        return chosen

    return make


@pytest.fixture
def adapter(base, cfg, tmp_path):
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(sft.load_base(base, cfg()), lora).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def trainer_with(base, tokenizer, card, pairs, cfg, adapter, tmp_path):
    """A function from given parameters to a trainer whose policy has moved away from its reference."""

    def make(moved: float = 0.01, train: int = 2, folder: str = "dpo", **given):
        chosen = cfg(**given)
        policy = dpo.load_policy(base, adapter, chosen)
        trainer = dpo.make_trainer(policy, tokenizer, pairs[:train], pairs[train:], card, chosen, tmp_path / folder)
        torch.manual_seed(1)
        with torch.no_grad():
            for name, weight in trainer.model.named_parameters():
                if ".default." in name:
                    weight += moved * torch.randn_like(weight)
        return trainer

    return make


def _step(trainer) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of all training pairs as one batch, in their order."""
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    with direct_lm_head("cpu"):
        loss = trainer.compute_loss(trainer.model.train(), batch)
        loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}


def test_dropout_of_the_adapter_is_off_in_the_trainer_and_in_its_budget(base, tokenizer, card, pairs, cfg, tmp_path):
    lora = LoraConfig(r=2, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
    policy = get_peft_model(sft.load_base(base, cfg()), lora)
    trainer = dpo.make_trainer(policy, tokenizer, pairs[:2], pairs[2:], card, cfg(), tmp_path / "dpo")
    switched = [module.p for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout)]
    assert switched and not any(switched)
    plan = plan_of(trainer, "cpu")
    assert plan.lora_dropout == 0.1 and budget._step(plan).dropout == 0


def test_the_settings_offer_exactly_the_losses_there_are():
    assert settings.CHOICES["preference_loss"] == tuple(losses.LOSSES)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_cached_and_adapter_reference_give_the_same_loss_and_gradients(trainer_with, name):
    asked = _step(trainer_with(preference_loss=name, reference="adapter"))
    cached = _step(trainer_with(preference_loss=name, reference="cached"))
    assert cached[0] == pytest.approx(asked[0], rel=1e-6)
    assert cached[1].keys() == asked[1].keys()
    for weight, gradient in cached[1].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, asked[1][weight], rtol=1e-4, atol=1e-7)


def _log_probabilities(model, prompt: list[int], reply: list[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(reply)[:, None]).squeeze(-1)


def _by_hand(trainer, score, loss) -> float:
    """Mean over the pairs of `loss(score(better) − score(worse))`, plus the SFT loss on the better replies.

    `score` takes the log-ratios of a reply's tokens and the number of tokens of the other reply.
    """
    terms, supervised = [], []
    with torch.no_grad():
        for row in trainer.train_dataset:
            ratios = []
            for reply in (row["chosen_ids"], row["rejected_ids"]):
                now = _log_probabilities(trainer.model, row["prompt_ids"], reply)
                with use_adapter(trainer.model, "ref"):
                    ratios.append(now - _log_probabilities(trainer.model, row["prompt_ids"], reply))
                supervised += [now] if reply is row["chosen_ids"] else []
            better, worse = ratios
            terms.append(loss(score(better, len(worse)) - score(worse, len(better))))
    weight = trainer.loss_weights[1]
    return float(torch.stack(terms).mean() - weight * torch.cat(supervised).mean())


def _sum(ratios, _):
    return ratios.sum()


BY_HAND = {
    "dpo": (_sum, lambda x: -F.logsigmoid(0.1 * x)),
    "smoothed": (_sum, lambda x: -(0.9 * F.logsigmoid(0.1 * x) - 0.1 * F.logsigmoid(-0.1 * x)) / 0.8),
    "length_normalised": (lambda ratios, _: ratios.mean(), lambda x: -F.logsigmoid(5 * x)),
    "length_desensitised": (
        lambda ratios, other: ratios[:other].sum() + 0.5 * ratios[other:].sum(),
        lambda x: -F.logsigmoid(0.1 * x),
    ),
}


@pytest.mark.parametrize("name", losses.LOSSES)
def test_each_loss_is_its_formula(trainer_with, name):
    trainer = trainer_with(moved=0.1, preference_loss=name, sft_weight=0.3)
    lengths = [(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in trainer.train_dataset]
    assert all(a != b for a, b in lengths), "unequal lengths are the point"
    loss, _ = _step(trainer)
    values = {other: _by_hand(trainer, *BY_HAND[other]) for other in BY_HAND}
    assert loss == pytest.approx(values.pop(name), rel=1e-5)
    assert all(abs(loss - other) > 1e-3 for other in values.values()), "the other formulas would have been told apart"


@pytest.mark.parametrize("name", ["dpo", "length_normalised"])
def test_accumulated_micro_batches_are_one_large_batch(trainer_with, name):
    """Three pairs at once, as two and one, and one by one."""
    stepped = []
    for batch_size, accumulation in ((3, 1), (2, 2), (1, 3)):
        given = {"batch_size": batch_size, "gradient_accumulation": accumulation, "learning_rate": 1.0}
        given |= {"max_steps": 1, "patience": 0, "preference_loss": name, "sft_weight": 1.0}
        trainer = trainer_with(moved=0.1, train=3, folder=f"dpo-{batch_size}", **given)
        assert len({len(row["chosen_ids"]) for row in trainer.train_dataset}) == 3, "unequal lengths are the point"
        trainer.args.optim, trainer.args.max_grad_norm, trainer.args.warmup_steps = "sgd", 0.0, 0
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
        assert sft.run(trainer, "cpu") == 1 and trainer.loss_weights == [1.0, 1.0]
        (loss,) = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        stepped.append((loss, {n: trainer.model.get_parameter(n).detach() - w for n, w in before.items()}))
    for loss, moves in stepped[1:]:
        assert loss == pytest.approx(stepped[0][0], rel=1e-5)
        for weight, move in moves.items():
            assert (move - stepped[0][1][weight]).norm() <= 1e-4 * stepped[0][1][weight].norm(), weight


def test_beta_is_the_losss_own_unless_given_and_above_zero(cfg):
    assert losses.dpo_options(cfg(preference_loss="length_normalised"))["beta"] == 5.0
    assert losses.dpo_options(cfg(preference_loss="length_normalised", beta=2))["beta"] == 2
    for bad in (0, True, "x"):
        with pytest.raises(settings.BadValue, match="beta is a number above 0, or None for that of the loss .0.1."):
            losses.dpo_options(cfg(beta=bad))


def test_the_cache_is_read_again_and_only_where_everything_is_the_same(trainer_with, tmp_path, monkeypatch):
    trainer_with()
    files = sorted(tmp_path.glob("**/reference/*"))
    assert len(files) == 2, "one for training, one held out"
    assert not [f for f in files if f.name.endswith(".part")]

    def refuse(*_):
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(reference, "_ask_reference", refuse)
        again = trainer_with(preference_loss="smoothed")
        known = {tuple(load_file(f)["ref_chosen_logps"].tolist()) for f in files}
        assert tuple(again.train_dataset["ref_chosen_logps"]) in known
        for other in ({"preference_loss": "length_desensitised"}, {"max_length": 4095}):
            with pytest.raises(AssertionError, match="computed again"):
                trainer_with(**other)

    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    save_file({name: 1.001 * w for name, w in weights.items()}, tmp_path / "adapter" / "adapter_model.safetensors")
    trainer_with()
    assert len(sorted(tmp_path.glob("**/reference/*"))) == 4, "another adapter is another reference"


def test_a_cache_cut_off_while_it_is_written_is_never_taken(trainer_with, tmp_path, monkeypatch):
    def killed(sums, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reference, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer_with()
    assert not list(tmp_path.glob("**/reference/*.safetensors"))
    assert len(trainer_with().train_dataset["ref_chosen_logps"]) == 2


def test_memory_that_runs_out_at_the_reference_or_the_held_out_pairs_is_one_sentence(trainer_with, monkeypatch):
    def burst(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(reference, "_ask_reference", burst)
        with pytest.raises(OutOfMemory, match="^Out of memory while the reference was asked: method dpo .* would fit"):
            trainer_with()
    trainer = trainer_with()
    trainer.model.register_forward_pre_hook(burst)
    with pytest.raises(OutOfMemory, match="^Out of memory on the held-out pairs: method dpo .* would fit"):
        dpo.evaluate(trainer, "cpu")


@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_first_pull_is_the_slope_of_the_loss_by_each_token(name):
    score, loss = BY_HAND[name]
    for better, worse in ((12, 30), (30, 12), (7, 7)):
        ratios = [torch.zeros(n, requires_grad=True) for n in (better, worse)]
        loss(score(ratios[0], worse) - score(ratios[1], better)).backward()
        assert losses.first_pull(name, better, worse) == pytest.approx(float(ratios[0].grad.abs().sum()))
        assert losses.first_pull(name, worse, better) == pytest.approx(float(ratios[1].grad.abs().sum()))


def test_length_pairs_are_two_good_replies_of_one_moment_and_the_shorter_is_chosen(card):
    sets = read_counterfactuals(settings.ROOT / "data" / "counterfactuals" / "sakura", card).sets
    made = preferences.length_pairs(sets)
    assert len(made) >= 20 and len({p.id for p in made}) == len(made)
    said = {
        s.user: {r.content: (r.affection_level, r.memories) for r in s.replies} for s in sets if s.axis == "emotion"
    }
    for pair in made:
        replies, meta = said[pair.messages[0].content], pair.metadata
        assert replies[pair.chosen] == replies[pair.rejected] == (meta.affection_level, meta.memories)
        assert len(pair.rejected) >= 1.3 * len(pair.chosen)
        assert not meta.emotions and "今の気持ち" not in pair.prompt(card)[0]["content"]
    first = made[:8]
    assert len({p.messages[0].content for p in first}) == 8, "one of each set before the second of any"
    ratios = [len(p.rejected) / len(p.chosen) for p in first]
    assert ratios == sorted(ratios, reverse=True)
    assert preferences.length_bias(made)["shorter is better"] == 1


def test_length_is_taught_only_where_the_card_asks_for_short_replies(card):
    preferences.check_asks_for_short(card)
    with pytest.raises(preferences.NoShortReplies, match="さくら asks for no short replies in `speech`"):
        preferences.check_asks_for_short(card.model_copy(update={"speech": "ゆっくり丁寧に話す。"}))


def test_length_tells_better_from_worse_only_in_the_pairs_that_are_too_long(card, tmp_path):
    found, _ = preferences.read_preferences(PAIRS, card, tmp_path / "bad.jsonl")
    others = preferences.length_bias([p for p in found if p.fault != "too_long"])
    assert 0.35 < others["shorter is better"] < 0.65 and 0.9 < others["median ratio"] < 1.1
    assert preferences.length_bias([p for p in found if p.fault == "too_long"])["shorter is better"] == 1
