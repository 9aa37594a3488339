"""Training room: what is learned, what is refused, TRL's loss, resuming, DPO's reference."""

import dataclasses
import json
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from talks import CHAT
from transformers import AutoModelForCausalLM

from helpers import records, settings
from helpers.families import stop_token_ids
from helpers.supervision import supervise
from helpers.train import checkpoints, preferences, preflight, quantized, sft, stages
from helpers.train.lm_head import DirectLogProb, direct_lm_head
from helpers.train.shapes import shape_of

PAIRS = settings.ROOT / "data" / "preferences" / "sakura"


def test_supervised_ids_are_exactly_her_words_and_end_tokens(tokenizer):
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    words = [m["content"] for m in CHAT if m["role"] == "assistant"]
    expected = [i for w in words for i in [*tokenizer(w, add_special_tokens=False)["input_ids"], end]]
    row = supervise(tokenizer, CHAT)
    assert row.supervised == expected
    assert row.input_ids.count(tokenizer.bos_token_id) == 1 and row.input_ids[0] == tokenizer.bos_token_id


def test_a_special_token_in_somebodys_words_is_refused(tokenizer):
    with pytest.raises(ValueError, match="end_of_turn"):
        supervise(tokenizer, [{"role": "user", "content": "x<end_of_turn>"}, CHAT[2]])


def test_generation_prompt_leads_exactly_to_what_is_supervised(tokenizer):
    row = supervise(tokenizer, CHAT[:3])
    prompt = tokenizer.apply_chat_template(CHAT[:2], add_generation_prompt=True)["input_ids"]
    assert row.input_ids[: len(prompt)] == list(prompt)
    assert row.assistant_masks.index(1) == len(prompt)


def test_preflight_refuses_each_silent_mistake(tokenizer):
    row = supervise(tokenizer, CHAT)
    preflight.check_rows(tokenizer, [row], 1024)
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    bad = {
        "not one row": [],
        "no supervised token": [dataclasses.replace(row, assistant_masks=[0] * len(row.input_ids))],
        "BOS": [dataclasses.replace(row, input_ids=[2, *row.input_ids], assistant_masks=[0, *row.assistant_masks])],
        "does not end with": [
            dataclasses.replace(
                row, assistant_masks=[m * (i != end) for i, m in zip(row.input_ids, row.assistant_masks, strict=True)]
            )
        ],
    }
    for reason, rows in bad.items():
        with pytest.raises(preflight.PreflightError, match=reason):
            preflight.check_rows(tokenizer, rows, 1024)
    with pytest.raises(preflight.PreflightError, match="within 5 tokens"):
        preflight.check_rows(tokenizer, [row], 5)
    begun = row.assistant_masks.index(1) + 1
    with pytest.raises(preflight.PreflightError, match=f"cut at {begun} tokens within her first turn"):
        preflight.check_rows(tokenizer, [row], begun)
    preflight.check_rows(tokenizer, [row], len(row.input_ids) - 4)


def test_direct_lm_head_has_trls_values_and_gradients():
    from trl.kernels import ChunkedLogProbFunction

    torch.manual_seed(0)
    hidden, weight = torch.randn(300, 16, requires_grad=True), torch.randn(400, 16)
    targets, outputs = torch.randint(0, 400, (300,)), ("entropy", "is_top1", "mean_logits", "log_sum_sq_probs")
    results = []
    for function in (ChunkedLogProbFunction, DirectLogProb):
        values = function.apply(hidden, weight, None, targets, 0.7, 64, None, 1.0, outputs)
        gradients = torch.autograd.grad((values[0] * torch.arange(300)).sum(), hidden)
        results.append([*values, *gradients])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), atol=1e-3, rtol=1e-4)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    cfg = settings.resolve("03_lora", {"profile": "smoke", "save_steps": 2, "max_steps": 4, "batch_size": 2})
    cfg.hardware = dataclasses.replace(cfg.hardware, dtype=torch.float32)
    return records.start(cfg)


def _trainer(stage, tiny, tokenizer, folder):
    from peft import LoraConfig

    rows = [supervise(tokenizer, [CHAT[1], {"role": "assistant", "content": f"おかえり{i}"}]) for i in range(8)]
    model = sft.load_base(tiny, stage.settings)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    return sft.make_trainer(model, tokenizer, rows, rows[:2], stage.settings, folder, lora)


@pytest.mark.parametrize("logging_steps", [1, 3])
def test_an_interrupted_run_goes_on_and_ends_where_the_uninterrupted_one_does(
    stage, tiny, tokenizer, tmp_path, logging_steps
):
    def trainer_at(folder):
        trainer = _trainer(stage, tiny, tokenizer, tmp_path / folder)
        trainer.args.logging_steps = logging_steps
        return trainer

    whole = trainer_at("whole")
    sft.run(whole, "cpu")

    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    first = trainer_at("cut")
    first.add_callback(Kill())
    with pytest.raises(KeyboardInterrupt):
        sft.run(first, "cpu")
    for step in (3, 4):  # as kill -9 in mid-write would leave them
        (tmp_path / "cut" / f"checkpoint-{step}").mkdir()
    (tmp_path / "cut" / "checkpoint-4" / "trainer_state.json").write_text('{"best_global_step": nu')
    assert checkpoints.last_checkpoint(tmp_path / "cut").name == "checkpoint-2"
    second = trainer_at("cut")
    sft.run(second, "cpu")

    def losses(trainer):
        return [h["loss"] for h in trainer.state.log_history if "loss" in h]

    assert second.state.global_step == whole.state.global_step == 4
    assert losses(second) == pytest.approx(losses(whole), abs=1e-5)


def test_full_fine_tuning_trains_every_weight_resumes_and_is_saved_whole(tiny, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    cfg = settings.resolve("03_lora", {"profile": "smoke", "method": "full", "max_steps": 4, "batch_size": 2})
    rows = [supervise(tokenizer, [CHAT[1], {"role": "assistant", "content": f"おかえり{i}"}]) for i in range(8)]

    def trainer_at(folder):
        return sft.make_trainer(sft.load_base(tiny, cfg, full=True), tokenizer, rows, rows[:2], cfg, folder, None)

    whole = trainer_at(tmp_path / "whole")
    before = {name: p.detach().clone() for name, p in whole.model.named_parameters()}
    loss_before = sft.validation_loss(whole, "cpu")
    sft.run(whole, "cpu")
    loss_after = sft.validation_loss(whole, "cpu")
    assert loss_after < loss_before
    assert all(p.requires_grad and not torch.equal(p, before[name]) for name, p in whole.model.named_parameters())

    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "cut" / "checkpoint-2")
    second = trainer_at(tmp_path / "cut")
    assert sft.validation_loss(second, "cpu") == pytest.approx(loss_before, abs=1e-5)
    sft.run(second, "cpu")
    assert sft.validation_loss(second, "cpu") == pytest.approx(loss_after, abs=1e-5)

    sft.save(whole, tokenizer, tmp_path / "model")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for name, p in saved.named_parameters():
        assert torch.equal(p, whole.model.get_parameter(name)), name
    assert stop_token_ids(tokenizer) == saved.generation_config.eos_token_id


def test_trl_with_the_direct_head_gives_the_models_own_loss(stage, tiny, tokenizer, tmp_path):
    trainer = _trainer(stage, tiny, tokenizer, tmp_path / "loss")
    ours = sft.validation_loss(trainer, "cpu")
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    total = count = 0
    for row in trainer.eval_dataset:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        n = int((labels != -100).sum())
        total += float(model(input_ids=ids, labels=labels).loss) * n
        count += n
    assert ours == pytest.approx(total / count, rel=1e-4)


# Every parameter of the stages that train is in one of the two, with a value that it does not have at `smoke`.
OTHER_WEIGHTS = {
    "03_lora": {"method": "full", "max_rows": 7, "packing": True},
    "04_qlora": {"quantization": "int8", "packing": True},
    "05_dpo": {
        "preferences": "data/preferences/seiji",
        "counterfactuals": "data/counterfactuals/seiji",
        "max_pairs": 23,
        "length_pairs": 0,
        "preference_loss": "smoothed",
        "beta": 0.3,
        "reference": "adapter",  # asked in each step, it has dropout
        "sft_weight": 0.5,
    },
}
OTHER_ADAPTER = {"lora_variant": "dora", "lora_r": 2, "lora_alpha": 3, "lora_dropout": 0.1, "optimizer": "adamw"}
for _stage in OTHER_WEIGHTS:
    OTHER_WEIGHTS[_stage] |= {} if _stage == "05_dpo" else OTHER_ADAPTER
    OTHER_WEIGHTS[_stage] |= {"seed": 1, "learning_rate": 0.5, "epochs": 9, "max_steps": 99, "patience": 5}
    OTHER_WEIGHTS[_stage] |= {"max_length": 999, "batch_size": 8, "gradient_accumulation": 3, "save_steps": 7}
SAME_WEIGHTS = {
    "run_name": "other",
    "base_model": "elsewhere",
    "persona": "seiji",
    "max_new_tokens": 5,
    "on_out_of_memory": "retry",
    "launch": "ddp",
    "processes": 2,
    "general_dialogues": "data/users",
    "user_dialogues": "data/dialogues",
    "stage_rows": 3,
    "stage_learning_rate": 0.5,
    "replay": 0.9,
    "expert_rows": 0,
}


@pytest.mark.parametrize("name", OTHER_WEIGHTS)
def test_checkpoints_outlive_a_change_that_cannot_change_the_weights_and_no_other(name, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    stage, known = records.start(settings.resolve(name, {"profile": "smoke"})), settings.parameters_of(name)
    own, before = vars(stage.settings).copy(), checkpoints.checkpoint_folder(stage)

    def folder(**given):
        stage.settings = settings.Settings(**(own | given))
        return checkpoints.checkpoint_folder(stage)

    same = {parameter: value for parameter, value in SAME_WEIGHTS.items() if parameter in known}
    assert {*same, *OTHER_WEIGHTS[name]} == set(known) and not same.keys() & OTHER_WEIGHTS[name].keys()
    for parameter, value in (same | OTHER_WEIGHTS[name]).items():
        assert own[parameter] != value, parameter
        assert (folder(**{parameter: value}) == before) == (parameter in same), parameter
    assert folder(batch_size=1, gradient_accumulation=own["batch_size"]) == before, "as many rows a step"
    assert folder(launch="fsdp2", processes=2) != before, "the optimiser's state is cut up"
    without = folder(patience=0)
    assert folder(patience=0, save_steps=7) == without


def test_a_stage_of_several_is_trained_anew_for_what_changes_its_weights_alone(stage):
    def key(**given):
        return stages.what_trains(settings.Settings(**(vars(stage.settings) | given)))

    own = key()
    idle = {parameter: value for parameter, value in SAME_WEIGHTS.items() if parameter != "stage_learning_rate"}
    assert key(**idle, learning_rate=0.5, max_rows=7, profile="gpu") == own
    assert key(batch_size=1, gradient_accumulation=2) == own
    changing = OTHER_ADAPTER | {"stage_learning_rate": 0.5, "epochs": 9, "max_steps": 99, "seed": 1, "patience": 5}
    for parameter, value in (changing | {"packing": True, "max_length": 999, "batch_size": 8}).items():
        assert key(**{parameter: value}) != own, parameter


def test_checkpoints_of_another_configuration_are_not_resumed(stage):
    folder = checkpoints.checkpoint_folder(stage)
    stage.settings.learning_rate *= 2
    other = checkpoints.checkpoint_folder(stage)
    assert other != folder and not folder.exists()


def test_a_loss_that_is_zero_not_a_number_or_flat_stops_the_run():
    from helpers.train.monitor import LossGuard, TrainingStopped

    state = SimpleNamespace(global_step=3)
    for value in (math.nan, 0.0):
        with pytest.raises(TrainingStopped, match="step 3"):
            LossGuard().on_log(None, state, None, logs={"loss": value})
    guard = LossGuard()
    for value in (2.5, 2.5, 2.4, 2.4, 2.4, 2.4):
        guard.on_log(None, state, None, logs={"loss": value})
    with pytest.raises(TrainingStopped, match="stood still at 2.4 for 5 log entries"):
        guard.on_log(None, state, None, logs={"loss": 2.4})


def test_a_real_run_whose_loss_is_no_number_zero_or_flat_is_stopped(stage, tiny, tokenizer, tmp_path):
    from helpers.train.monitor import TrainingStopped

    def stopped(reason: str, change, steps: int = 4):
        stage.settings.max_steps, stage.settings.patience = steps, 0
        trainer = _trainer(stage, tiny, tokenizer, tmp_path / reason)
        trainer.args.logging_steps = 1
        change(trainer)
        with pytest.raises(TrainingStopped, match=reason):
            sft.run(trainer, "cpu")

    def without_number(trainer):
        norm = trainer.model.get_base_model().model.norm
        norm.register_forward_hook(lambda module, given, result: result * math.nan)

    def loss_becomes(function):
        def change(trainer):
            loss_of = trainer.compute_loss
            trainer.compute_loss = lambda *given, **more: function(loss_of(*given, **more))

        return change

    stopped("loss is nan at step 1", without_number)
    stopped("loss is 0.0 at step 1", loss_becomes(lambda loss: loss * 0))
    stopped("loss has stood still at 2.5", loss_becomes(lambda loss: loss - loss.detach() + 2.5), steps=6)


def test_a_run_whose_weights_do_not_move_is_stopped(stage, tiny, tokenizer, tmp_path):
    from helpers.train.monitor import TrainingStopped

    stage.settings.learning_rate = 1e-30
    with pytest.raises(TrainingStopped, match="No trained weight has changed in 4 steps: look at learning_rate .1e-30"):
        sft.run(_trainer(stage, tiny, tokenizer, tmp_path / "still"), "cpu")


def test_nf4_layers_are_packed_and_counted(stage, tiny):
    model = sft.load_base(tiny, stage.settings, quantization=quantized.nf4(stage.settings.hardware))
    plain = sft.load_base(tiny, stage.settings)
    layers = quantized.packed_layers(model)
    assert len(layers) == 14 and not quantized.packed_layers(plain)
    packed, whole = quantized.bytes_by_part(model), quantized.bytes_by_part(plain)
    assert packed["linear layers"] < whole["linear layers"] / 5
    assert set(packed) >= {"embeddings", "linear layers", "norms"}
    unloaded = shape_of(tiny.path).on_meta(dtype=stage.settings.hardware.dtype)
    assert quantized.bytes_by_part(unloaded) == whole


def test_a_peak_of_its_own_leaves_that_of_the_whole_stage(stage, monkeypatch):
    card = SimpleNamespace(peak=7)  # while the base was loaded
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: card.peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: setattr(card, "peak", 0))
    stage.forget_gpu_peak()
    card.peak += 3
    assert stage.gpu_peak() == 3 and stage.peaks()["peak_gpu_bytes"] == 7
    card.peak += 6
    assert stage.gpu_peak() == stage.peaks()["peak_gpu_bytes"] == 9


def test_gradients_pass_through_4_bit_layers_also_after_an_evaluation(stage, tiny, tokenizer):
    """Against a plain model that holds the same, de-quantized weights."""
    from bitsandbytes.functional import dequantize_4bit
    from peft import LoraConfig, get_peft_model

    model = sft.load_base(tiny, stage.settings, quantization=quantized.nf4(stage.settings.hardware))
    plain = sft.load_base(tiny, stage.settings)
    for name in quantized.packed_layers(model):
        packed = model.get_submodule(name).weight
        plain.get_submodule(name).weight.data = dequantize_4bit(packed.data, packed.quant_state).to(torch.float32)
    ids = torch.tensor([supervise(tokenizer, CHAT).input_ids])
    gradients = []
    for base in (model, plain):
        torch.manual_seed(0)
        adapted = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
        with torch.no_grad():
            adapted.eval()(input_ids=ids)
        adapted.train()(input_ids=ids, labels=ids).loss.backward()
        gradients.append({name: p.grad for name, p in adapted.named_parameters() if p.requires_grad})
    for name, gradient in gradients[1].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[0][name].float(), gradient.float(), rtol=1e-3, atol=1e-5)


def test_preflight_refuses_pairs_that_are_cut_dropped_or_never_end(tokenizer):
    from datasets import Dataset

    chats = {"prompt": CHAT[:2], "chosen": CHAT[:3], "rejected": [*CHAT[:2], {"role": "assistant", "content": "はい"}]}
    ids = {name: list(tokenizer.apply_chat_template(chat)["input_ids"]) for name, chat in chats.items()}
    start = len(tokenizer.apply_chat_template(CHAT[:2], add_generation_prompt=True)["input_ids"])
    pair = {"prompt_ids": ids["chosen"][:start], "chosen_ids": ids["chosen"][start:]}
    pair |= {"rejected_ids": ids["rejected"][start:]}
    preflight.check_pairs(tokenizer, Dataset.from_list([pair]), 1, 1024)
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    bad = {
        "1 of 2 pairs have a context of 1024 tokens": (pair, 2, 1024),
        "would be cut at 20": (pair, 1, 20),
        "0 has 2 BOS tokens where 1 is due": (pair | {"prompt_ids": [2, *pair["prompt_ids"]]}, 1, 1024),
        "rejected reply that does not end with one": (pair | {"rejected_ids": ids["rejected"][start:-2]}, 1, 1024),
        "chosen reply that does not end with one": (pair | {"chosen_ids": [end, *pair["chosen_ids"]]}, 1, 1024),
    }
    for reason, (row, expected, max_length) in bad.items():
        with pytest.raises(preflight.PreflightError, match=reason):
            preflight.check_pairs(tokenizer, Dataset.from_list([row]), expected, max_length)


def test_preference_pairs_are_sound(card, tmp_path):
    pairs, bad = preferences.read_preferences(PAIRS, card, tmp_path / "bad.jsonl")
    assert len(pairs) >= 60 and not bad and not (tmp_path / "bad.jsonl").read_text()
    assert set(preferences.faults(pairs)) == set(preferences.FAULTS)
    assert all(len(p.chosen) <= card.max_reply_chars for p in pairs)


def test_too_few_preference_pairs_are_one_sentence_and_bad_ones_are_set_aside(card, tmp_path):
    good = (PAIRS / "basics.jsonl").read_text(encoding="utf-8").splitlines()[0]
    moody = json.loads(good)
    moody["metadata"]["emotions"] = ["shy"]
    (tmp_path / "pairs.jsonl").write_text("\n".join([good, json.dumps(moody), "{oops"]), encoding="utf-8")
    with pytest.raises(preferences.TooFewPairs, match="1 good preference pairs .2 bad lines"):
        preferences.read_preferences(tmp_path, card, tmp_path / "quarantine" / "bad.jsonl")
    assert "no emotion 'shy'" in (tmp_path / "quarantine" / "bad.jsonl").read_text()


def test_dpo_starts_from_the_sft_companion_with_margin_zero(stage, tiny, tokenizer, tmp_path, card, monkeypatch):
    from helpers.train import dpo

    first = _trainer(stage, tiny, tokenizer, tmp_path / "sft")
    sft.run(first, "cpu")
    sft.save(first, tokenizer, tmp_path / "adapter")
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    cfg = settings.resolve("05_dpo", {"profile": "smoke", "max_steps": 2})
    cfg.hardware = stage.settings.hardware
    pairs, _ = preferences.read_preferences(PAIRS, card, tmp_path / "bad.jsonl")
    policy = dpo.load_policy(tiny, tmp_path / "adapter", cfg)
    trainer = dpo.make_trainer(policy, tokenizer, pairs[:4], pairs[4:6], card, cfg, tmp_path / "dpo")
    assert dpo.evaluate(trainer, "cpu")["margin"] == pytest.approx(0, abs=1e-4)
    margins = dpo.margins_against_base(trainer.model, tokenizer, pairs[:2], card, trainer.beta)
    assert any(abs(m) > 1e-4 for m in margins)
    sft.run(trainer, "cpu")
    steps = [h for h in trainer.state.log_history if "rewards/margins" in h]
    assert steps and all(h["grad_norm"] > 0 for h in steps)
    trained = dpo.evaluate(trainer, "cpu")["margin"]
    assert trained != pytest.approx(0, abs=1e-4)
    again = dpo.make_trainer(
        dpo.load_policy(tiny, tmp_path / "adapter", cfg), tokenizer, pairs[:4], pairs[4:6], card, cfg, tmp_path / "dpo"
    )
    sft.run(again, "cpu")
    assert again.state.global_step == 2
    assert dpo.evaluate(again, "cpu")["margin"] == pytest.approx(trained, abs=1e-5), "a resumed run keeps its policy"
    dpo.save(trainer, tokenizer, tmp_path / "after")
    assert {p.name for p in (tmp_path / "after").iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}


def test_direct_lm_head_leaves_trl_as_it_was():
    import trl.trainer.utils as utils

    original = utils._ChunkedLogProbFunction
    with direct_lm_head("cpu"):
        assert utils._ChunkedLogProbFunction is not original
    assert utils._ChunkedLogProbFunction is original
