"""Every method of training by its parameter, and what cannot be refused in a sentence."""

import dataclasses
import gc
import json
import weakref

import pytest
import torch
from peft import LoraConfig
from talks import CHAT

from helpers import settings
from helpers.serve.server import ServerError, max_lora_rank
from helpers.supervision import supervise
from helpers.train import optimizers, quantized, sft


@pytest.fixture
def cfg():
    found = settings.resolve("04_qlora", {"profile": "smoke", "max_steps": 3, "lora_r": 4, "lora_alpha": 8})
    found.hardware = dataclasses.replace(found.hardware, dtype=torch.float32)
    return found


@pytest.fixture
def trainer_of(cfg, tiny, tokenizer, tmp_path):
    def make(quantization: str | None = None, **lora):
        rows = [supervise(tokenizer, CHAT)] * 4
        config = quantized.QUANTIZATIONS[quantization](cfg.hardware) if quantization else None
        model = sft.load_base(tiny, cfg, quantization=config)
        adapter = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **lora)
        return sft.make_trainer(model, tokenizer, rows, rows, cfg, tmp_path / "run", adapter)

    return make


def _layer(trainer):
    return next(module for module in trainer.model.modules() if hasattr(module, "lora_magnitude_vector"))


def test_rslora_divides_by_the_root_of_the_rank(trainer_of):
    assert _layer(trainer_of()).scaling["default"] == 8 / 4
    assert _layer(trainer_of(use_rslora=True)).scaling["default"] == 8 / 4**0.5


def test_dora_learns_the_length_of_each_row(trainer_of):
    assert not _layer(trainer_of()).lora_magnitude_vector
    trainer = trainer_of(use_dora=True)
    lengths = _layer(trainer).lora_magnitude_vector["default"].weight
    before, loss = lengths.detach().clone(), sft.validation_loss(trainer, "cpu")
    sft.run(trainer, "cpu")
    assert (lengths - before).abs().max() > 0
    assert sft.validation_loss(trainer, "cpu") < loss


@pytest.mark.parametrize(("quantization", "bits"), [("nf4", 4), ("int8", 8)])
def test_the_adapter_learns_on_a_packed_base_that_stays_packed(trainer_of, quantization, bits):
    trainer = trainer_of(quantization)
    packed = quantized.packed_layers(trainer.model)
    layers = [trainer.model.get_submodule(name) for name in packed]
    assert len(layers) == 14
    assert {quantized.bits_per_weight(layer) for layer in layers} == {bits}
    before, loss = [layer.weight.detach().clone() for layer in layers], sft.validation_loss(trainer, "cpu")
    sft.run(trainer, "cpu")
    assert sft.validation_loss(trainer, "cpu") < loss
    assert quantized.packed_layers(trainer.model) == packed
    for layer, weight in zip(layers, before, strict=True):
        assert torch.equal(layer.weight, weight), "the base is frozen"


def test_int8_recomputes_so_that_bitsandbytes_keeps_no_inputs(trainer_of):
    assert trainer_of("int8").args.gradient_checkpointing_kwargs == {"use_reentrant": True}
    assert not (trainer_of("nf4").args.gradient_checkpointing_kwargs or {}).get("use_reentrant")


def test_all_weights_have_a_learning_rate_and_checkpoints_of_their_own():
    def given(**more):
        found = settings.resolve("03_lora", {"profile": "gpu"} | more)
        return found.learning_rate, found.save_steps

    assert given() == (2e-4, 10) and given(method="full") == (1e-5, 50)
    assert given(method="full", learning_rate=3e-6, save_steps=7) == (3e-6, 7)


def test_a_finished_training_gives_its_optimizer_back(trainer_of):
    trainer = trainer_of()
    sft.run(trainer, "cpu")
    held = [weakref.ref(trainer.optimizer.optimizer), weakref.ref(trainer.lr_scheduler)]
    sft.release(trainer)
    gc.collect()
    assert [each() for each in held] == [None, None]
    assert trainer.state.global_step == 3 and next(trainer.model.parameters()).device.type == "cpu"


def test_int8_holds_about_half_the_bytes_of_16_bits(cfg, tiny):
    cfg.hardware = dataclasses.replace(cfg.hardware, dtype=torch.bfloat16)
    whole = quantized.bytes_by_part(sft.load_base(tiny, cfg))
    packed = quantized.bytes_by_part(sft.load_base(tiny, cfg, quantization=quantized.int8(cfg.hardware)))
    assert packed["embeddings"] == whole["embeddings"]
    assert 0.5 < packed["linear layers"] / whole["linear layers"] < 0.53


def test_an_optimizer_that_would_learn_nothing_or_is_not_there_is_refused(cfg, tiny, monkeypatch):
    cpu, gpu = cfg.hardware, dataclasses.replace(cfg.hardware, device="cuda")
    model = sft.load_base(tiny, cfg)
    packed = sft.load_base(tiny, cfg, quantization=quantized.nf4(cpu))

    def chosen(name, hardware, model, full):
        return optimizers.choose_optimizer(name, hardware, model, full)[0]

    assert chosen("auto", cpu, model, True) == chosen("auto", gpu, model, False) == "adamw"
    assert chosen("auto", cpu, packed, False) == "adamw" and chosen("auto", gpu, packed, False) == "paged_8bit"
    assert chosen("auto", gpu, model.bfloat16(), True) == "stochastic_8bit"
    with pytest.raises(optimizers.UnfitOptimizer, match="lose most updates of bfloat16 weights to rounding: use 'st"):
        chosen("adamw", gpu, model, True)
    with pytest.raises(optimizers.UnfitOptimizer, match="on a CPU use 'auto' or 'adamw'"):
        chosen("paged_8bit", cpu, packed, False)
    with pytest.raises(optimizers.UnfitOptimizer, match="is for method='full' in bfloat16"):
        chosen("stochastic_8bit", gpu, model, False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert chosen("auto", gpu, model, True) == chosen("adamw", gpu, model, True) == "adamw", "accelerate has float32"


def test_plain_adamw_leaves_bfloat16_weights_where_they_were():
    """Why `optimizers` refuses it: an update of 1e-5 is less than half a step of bfloat16 at 1."""
    weights = {dtype: torch.nn.Parameter(torch.ones(64, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32)}
    for weight in weights.values():
        optimizer = torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.0)
        for _ in range(50):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
    assert (weights[torch.bfloat16] == 1).all() and (weights[torch.float32] < 1 - 4e-4).all()


@pytest.mark.slow
def test_stochastic_rounding_moves_bfloat16_weights_as_far_as_float32_ones():
    optim = pytest.importorskip("torchao.optim", reason="torchao is in the GPU set only")
    weight = torch.nn.Parameter(torch.ones(64, 256, dtype=torch.bfloat16))
    optimizer = optim.AdamW8bit([weight], lr=1e-5, weight_decay=0.0, bf16_stochastic_round=True)
    for _ in range(50):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert float(weight.float().mean()) == pytest.approx(1 - 50e-5, abs=1e-4)


def test_vllm_is_not_asked_to_serve_a_dora(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "use_dora": True}))
    with pytest.raises(ServerError, match="no DoRA adapter, and 'sakura' is one: serve what 06 merges"):
        max_lora_rank({"sakura": tmp_path})
