"""Training outside the notebook, in one process and in many: the same rows, losses and checkpoints; one record; what is
refused; no process left behind."""

import dataclasses
import itertools
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from accelerate import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.commands import launch
from accelerate.state import AcceleratorState
from accelerate.utils import patch_environment
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from peft import LoraConfig
from talks import CHAT
from transformers import Trainer
from transformers.integrations.accelerate import check_and_set_device_map
from transformers.training_args import ParallelMode

from helpers import records, settings
from helpers.conversations import conversation_from, write_conversations
from helpers.supervision import supervise
from helpers.train import cells, dpo, launcher, order, ranks, sft
from helpers.train.__main__ import main
from helpers.train.monitor import TrainingStopped

ROWS = 13  # in steps of four: the last of an epoch has one


@pytest.fixture
def outputs(tmp_path, monkeypatch, tiny, tokenizer):
    """A run whose 02_augment is finished: short conversations, ROWS to train on and 5 to validate."""
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    monkeypatch.setenv("COMPANION_OUTPUTS", str(tmp_path))
    stage = records.start(settings.resolve("02_augment", {"profile": "smoke"}))
    stage.uses(tiny, tokenizer)
    found = [
        conversation_from({"id": f"t{n}", "messages": CHAT[1:3] + [CHAT[3], CHAT[4]] * (n % 4)}, "t") for n in range(18)
    ]
    write_conversations(stage.folder / "train.jsonl", found[:ROWS])
    write_conversations(stage.folder / "validation.jsonl", found[ROWS:])
    stage.finish({}, ["train.jsonl", "validation.jsonl"])
    return tmp_path


GIVEN = {
    "profile": "smoke",
    "batch_size": 2,
    "gradient_accumulation": 2,
    "max_steps": 6,
    "save_steps": 1,
    "max_rows": ROWS,
}
WORDS = [word for name, value in list(GIVEN.items())[1:] for word in ("-p", f"{name}={value}")]


def _history(variables: dict, key: str) -> list[float]:
    return [entry[key] for entry in variables["trainer"].state.log_history if key in entry]


def _adapter(variables: dict) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in variables["trainer"].model.named_parameters() if p.requires_grad}


def test_a_stage_runs_outside_its_notebook_and_reads_its_parameters(outputs, capsys):
    assert main(["3", "--profile", "smoke", *WORDS, "-p", "max_steps=2", "-p", "learning_rate=2e-3"]) == 0
    record = records.load(outputs / "smoke", "03_lora").record
    assert record["settings"]["learning_rate"] == 2e-3 and record["settings"]["batch_size"] == 2
    assert record["metrics"]["steps"] == 2 and record["metrics"]["trained_weights"] > 0
    assert list(record["artifacts"]) == ["adapter"]
    assert "03_lora is complete" in capsys.readouterr().out
    for words, code, said in (
        (["3", "-p", "learning_rat=1"], 2, "Did you mean 'learning_rate'?"),
        (["3", "-p", "seed"], 2, "-p takes name=value"),
        (["8"], 1, "08_evaluate has no cells tagged `train`"),
        (["3", "--run-name", "none", "--profile", "smoke"], 1, "Stage 02_augment of run 'none' has not been run"),
        (["3", "-p", "launch=ddp", "-p", "processes=3", *WORDS], 1, "make the product a multiple of 3"),
    ):
        assert main(words) == code
        assert said in capsys.readouterr().err


def _finished(outputs, stage: str, name: str, text: str) -> None:
    done = records.start(settings.resolve(stage, {"profile": "smoke"}))
    (done.folder / "adapter").mkdir(parents=True, exist_ok=True)
    (done.folder / "adapter" / name).write_text(text)
    done.finish({"trained_weights": 1}, ["adapter"])


def _stop(error):
    def stop(*_, **__):
        raise error

    return stop


def test_a_rerun_that_is_refused_or_stops_costs_no_finished_stage(outputs, tmp_path, monkeypatch, capsys):
    """Hours of training would have to be repeated because of a typing error."""
    few = tmp_path / "few.jsonl"
    few.write_text("{}\n")
    for stage in ("03_lora", "04_qlora", "05_dpo"):
        _finished(outputs, stage, "adapter_config.json", "{}")
    kept = {stage: (outputs / "smoke" / stage / "run.json").read_bytes() for stage in ("03_lora", "04_qlora", "05_dpo")}

    def stands(stage):
        records.load(outputs / "smoke", stage)
        return (outputs / "smoke" / stage / "run.json").read_bytes() == kept[stage]

    def refused(stage, said, *words):
        assert main([stage, "--profile", "smoke", *WORDS[:-2], *words]) == 1, words
        assert said in capsys.readouterr().err
        return stands(stage)

    for stage in kept:
        assert refused(stage, "There is no base model 'no such model'", "-p", "base_model=no such model")
        assert refused(stage, "nobody", "-p", "persona=nobody")
    assert refused("05_dpo", "fewer than", "-p", f"preferences={few}")
    monkeypatch.setattr(sft, "run", _stop(TrainingStopped("the loss is no number")))
    assert refused("03_lora", "the loss is no number")
    (outputs / "smoke" / "02_augment" / "train.jsonl").write_text("changed since")
    assert refused("03_lora", "is not what its record describes") and refused("04_qlora", "is not what its record")


def test_a_rerun_that_stops_while_it_saves_is_not_taken_for_whole(outputs, monkeypatch, capsys):
    _finished(outputs, "03_lora", "adapter_config.json", "{}")
    monkeypatch.setattr(sft, "run", lambda *_, **__: 1)
    monkeypatch.setattr(sft, "save", _stop(OSError("No space left on device")))
    assert main(["3", "--profile", "smoke", *WORDS]) == 1
    with pytest.raises(records.MissingStage, match="03_lora of run 'smoke' was interrupted"):
        records.load(outputs / "smoke", "03_lora")


@pytest.mark.parametrize(
    "name", ["20261130", "2026_11_30", "2026-11-30", "1e5", "nan", "true", "null", "~", "007", 'a "b": c', "さくら🌸"]
)
def test_launched_processes_have_the_same_settings(name, tmp_path):
    for stage in ("03_lora", "04_qlora", "05_dpo"):
        given = {"run_name": name, "base_model": f"/models/{name}", "learning_rate": 1e-5, "launch": "ddp"}
        cfg = settings.resolve(stage, given | {"profile": "smoke", "processes": 2})
        words = launcher.command(cfg, launcher.Machines(), tmp_path, recorded=True)
        pairs = [value for word, value in itertools.pairwise(words) if word == "-p"]
        inside = settings.resolve(stage, settings.given_parameters(pairs))
        assert inside.values == cfg.values and inside.folder == cfg.folder


def test_two_processes_go_on_where_one_stopped_and_one_where_two_did(outputs, monkeypatch):
    common = sft.common_arguments
    monkeypatch.setattr(sft, "common_arguments", lambda *a: common(*a) | {"save_total_limit": None})
    one = cells.run("03_lora", GIVEN)
    checkpoints = next((outputs / "smoke" / "03_lora" / "checkpoints").iterdir())
    _forget(checkpoints, 3, 4, 5, 6)
    two = cells.run("03_lora", GIVEN | {"launch": "ddp", "processes": 2})  # as the notebook does
    assert two["steps"] == 0, "this process itself made no step"
    assert two["measured"]["tokens_per_second"], "and took what the others measured"
    assert next((outputs / "smoke" / "03_lora" / "checkpoints").iterdir()) == checkpoints
    assert (checkpoints / "checkpoint-5" / "rng_state_1.pth").exists(), "two processes went on"
    assert two["loss_after"] == pytest.approx(two["launched"]["loss_after"], rel=1e-4)
    _forget(checkpoints, 6)
    back = cells.run("03_lora", GIVEN)
    assert back["steps"] == 1
    losses = _history(one, "loss")
    assert len(losses) == len(set(losses)) == 6
    for other in (two, back):
        assert _history(other, "loss") == pytest.approx(losses, rel=1e-4)
        assert _history(other, "grad_norm") == pytest.approx(_history(one, "grad_norm"), rel=2e-3)
        assert _history(other, "eval_loss") == pytest.approx(_history(one, "eval_loss"), rel=1e-4)
        assert other["loss_after"] == pytest.approx(one["loss_after"], rel=1e-4)
        for name, weight in _adapter(other).items():
            torch.testing.assert_close(weight, _adapter(one)[name], rtol=0, atol=2e-4)
    assert cells.record(two)["status"] == "complete"
    assert records.load(outputs / "smoke", "03_lora").record["settings"]["processes"] == 2


@pytest.mark.slow
def test_dpo_in_two_processes_learns_what_it_does_in_one(outputs):
    assert main(["3", "--profile", "smoke", *WORDS, "-p", "max_steps=2"]) == 0
    # Micro-batches of one pair in both: larger ones would be rounded otherwise where it is done in bfloat16.
    given = {"profile": "smoke", "batch_size": 1, "gradient_accumulation": 2, "max_steps": 3, "save_steps": 1}
    given |= {"max_pairs": 22, "length_pairs": 0}  # 20 to train on: an even number, so that none is left out
    one = cells.run("05_dpo", given)
    shutil.rmtree(outputs / "smoke" / "05_dpo")
    two = cells.run("05_dpo", given | {"launch": "ddp", "processes": 2})
    assert two["launched"]["steps"] == two["measured"]["steps"] == 3
    for key in ("loss", "rewards/margins"):
        assert _history(two, key) == pytest.approx(_history(one, key), rel=1e-3, abs=1e-5)
    for name, weight in _adapter(two).items():
        torch.testing.assert_close(weight, _adapter(one)[name], rtol=0, atol=2e-4)
    assert cells.record(two)["status"] == "complete"
    assert records.load(outputs / "smoke", "05_dpo").adapter.is_dir()


@pytest.mark.slow
def test_a_packed_base_in_two_processes_teaches_what_it_does_in_one(outputs):
    assert main(["3", "--profile", "smoke", *WORDS, "-p", "max_steps=2"]) == 0
    given = {name: value for name, value in GIVEN.items() if name != "max_rows"} | {"max_steps": 3}
    one = cells.run("04_qlora", given)
    shutil.rmtree(outputs / "smoke" / "04_qlora")
    two = cells.run("04_qlora", given | {"launch": "ddp", "processes": 2})
    assert two["steps"] == 0 and two["launched"]["steps"] == 3
    # The adapter is in bfloat16: what is added up in another order is rounded otherwise.
    assert _history(two, "loss") == pytest.approx(_history(one, "loss"), rel=1e-2)
    learned = [torch.cat([w.flatten() for n, w in _adapter(v).items() if "lora_B" in n]).float() for v in (one, two)]
    assert torch.cosine_similarity(*learned, dim=0) > 0.9
    assert cells.record(two)["status"] == "complete"
    assert records.load(outputs / "smoke", "04_qlora").adapter.is_dir()


def _forget(checkpoints, *steps):
    for step in steps:
        shutil.rmtree(checkpoints / f"checkpoint-{step}")


def test_weights_that_were_to_be_sharded_and_are_not_stop_the_run(tiny, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    cfg = settings.resolve("03_lora", {"profile": "smoke"})
    rows = [supervise(tokenizer, CHAT)]
    with pytest.raises(ranks.BadShare, match="does not shard on this device: use 'ddp'"):
        sft.make_trainer(sft.load_base(tiny, cfg, full=True), tokenizer, rows, rows, cfg, tmp_path, None)


class _Built(Exception):
    """Raised where a trainer would be made, with the arguments for it."""


def _build(args, **given):
    raise _Built(args)


@pytest.fixture(params=["03_lora", "05_dpo"])
def on_eight_gpus(request, monkeypatch):
    """A stage's settings on a machine that seems to have eight GPUs, where trainers are not built."""
    cfg = settings.resolve(request.param, {"profile": "smoke"})
    cfg.hardware = dataclasses.replace(cfg.hardware, device="cuda", dtype=torch.float32)
    for name, found in {"is_available": True, "device_count": 8, "set_device": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, found=found: found)
    monkeypatch.setattr(sft, "OrderedSFTTrainer", _build)
    monkeypatch.setattr(dpo, "WholeStepDPOTrainer", _build)
    yield cfg
    AcceleratorState._reset_state(reset_partial_state=True)


def test_one_process_trains_on_one_gpu_of_eight(on_eight_gpus, tokenizer, card, tmp_path):
    cfg, model, rows = on_eight_gpus, torch.nn.Module(), [supervise(tokenizer, CHAT)]
    with pytest.raises(_Built) as built:
        if cfg.stage == "05_dpo":
            dpo.make_trainer(model, tokenizer, [], [], card, cfg, tmp_path)
        else:
            sft.make_trainer(model, tokenizer, rows, rows, cfg, tmp_path, LoraConfig())
    (arguments,) = built.value.args
    assert arguments.n_gpu == 1 and arguments.parallel_mode == ParallelMode.NOT_PARALLEL
    assert arguments.train_batch_size == cfg.batch_size
    assert arguments.device == check_and_set_device_map(ranks.device_of("cuda"))[""] == torch.device("cuda:0")


@pytest.mark.parametrize("packing", [False, True])
def test_one_process_meets_the_rows_that_it_met_with_the_librarys_sampler(
    packing, tiny, tokenizer, tmp_path, monkeypatch
):
    cfg = settings.resolve("03_lora", {"profile": "smoke", "packing": packing, "batch_size": 2, "max_length": 200})
    rows = [supervise(tokenizer, CHAT[1:3] + [CHAT[3], CHAT[4]] * (n % 4)) for n in range(ROWS)]

    def met(epochs: int) -> list[list[int]]:
        trainer = sft.make_trainer(sft.load_base(tiny, cfg, full=True), tokenizer, rows, rows, cfg, tmp_path, None)
        sft.validation_loss(trainer, "cpu")
        loader, found = trainer.get_train_dataloader(), []
        for epoch in range(epochs):
            trainer.state.epoch = float(epoch)
            loader.set_epoch(epoch)
            found += [batch["input_ids"].tolist() for batch in loader]
        return found

    ours = met(2)
    monkeypatch.setattr(order.SameOrder, "_get_train_sampler", Trainer._get_train_sampler)
    assert ours == met(2)


def test_the_rows_of_a_step_do_not_depend_on_how_it_is_shared_out():
    lengths = [n * 7 % 11 + 3 for n in range(ROWS)]
    for rows, among, accumulation in ((8, 1, 4), (8, 2, 2), (8, 4, 1), (8, 1, 1)):
        micro = rows // among // accumulation
        sampler = order.RowOrder(lambda e: order.grouped_order(lengths, 8, 42, e), lambda: 1, ROWS, micro * among)
        found = list(sampler)
        assert len(found) == len(sampler) and len(found) % (micro * among) == 0
        steps = [sorted(i for i in found[n : n + rows] if i != ROWS) for n in range(0, len(found), rows)]
        expected = order.grouped_order(lengths, 8, 42, 1)
        assert steps == [sorted(expected[:8]), sorted(expected[8:])]
    assert order.grouped_order(lengths, 8, 42, 0) != order.grouped_order(lengths, 8, 42, 1)


def test_a_step_is_shared_out_equally_and_no_micro_batch_grows():
    assert [ranks.share(4, 4, n) for n in (1, 2, 4, 8, 16)] == [(4, 4), (4, 2), (4, 1), (2, 1), (1, 1)]
    assert ranks.share(4, 1, 2) == (2, 1) and ranks.share(4, 3, 2) == (3, 2) and ranks.share(4, 5, 2) == (2, 5)
    with pytest.raises(ranks.BadShare, match="A step of 16 rows .* among 3 processes: make the product a multiple"):
        ranks.share(4, 4, 3)


@pytest.mark.parametrize(
    ("given", "machines", "said"),
    [
        ({"processes": 2}, {}, "processes=2 takes a launch"),
        ({"launch": "ddp"}, {}, "processes of 2 or more, not 1"),
        ({"launch": "ddp", "processes": 3}, {"count": 2, "address": "a"}, "3 processes cannot be spread equally"),
        ({"launch": "ddp", "processes": 2}, {"count": 2}, "need --address"),
        ({"launch": "fsdp2", "processes": 2}, {}, "there is none: use launch='ddp'"),
    ],
)
def test_what_cannot_be_launched_is_refused_before_anything_starts(given, machines, said):
    cfg = settings.resolve("03_lora", {"profile": "smoke"} | given)
    if cfg.hardware.device == "cuda":
        pytest.skip("the sentences for a machine without a GPU")
    with pytest.raises(settings.BadValue, match=said):
        launcher.check(cfg, launcher.Machines(**machines))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "pathlib.Path(sys.argv[1], 'error-1.txt').write_text('ValueError: too few rows'); sys.exit(1)",
            "too few rows",
        ),
        ("print('Signal 9 (SIGKILL)', file=sys.stderr); sys.exit(1)", "most often for lack of memory: lower batch"),
        ("sys.exit(3)", "no process said why"),
    ],
)
def test_processes_that_fail_are_one_sentence(tmp_path, monkeypatch, code, said):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    cfg = settings.resolve("03_lora", {"profile": "smoke", "launch": "ddp", "processes": 2})
    words = [sys.executable, "-c", f"import pathlib, sys; {code}"]
    monkeypatch.setattr(launcher, "command", lambda cfg, machines, answers, recorded: [*words, str(answers)])
    with pytest.raises(
        launcher.LaunchError, match=r"^Training in 2 processes \(ddp\) stopped: .*launch.log\)$"
    ) as error:
        launcher.run(cfg, launcher.Machines())
    assert said in str(error.value)


def _environment(name: str) -> dict[str, str]:
    """What `accelerate launch` tells the processes that it starts by this configuration."""
    words = ["--config_file", str(launcher.CONFIGURATIONS / f"{name}.yaml"), "--num_processes", "4"]
    words += ["--main_process_port", "0", "--module", "helpers.train.worker", "03_lora"]
    args, defaults, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(words))
    assert args.num_processes == 4 and args.mixed_precision == "no"
    if not args.use_deepspeed:
        return prepare_multi_gpu_env(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    return prepare_deepspeed_cmd_env(args)[1]


def test_every_configuration_is_what_accelerate_makes_of_it(monkeypatch):
    names = [name for name in settings.CHOICES["launch"] if name != "none"]
    assert sorted(path.stem for path in launcher.CONFIGURATIONS.iterdir()) == sorted(names)
    for name in names:
        with patch_environment(**_environment(name)):
            assert ranks.sharded() == (name in ranks.SHARDED)
            if name == "fsdp2":
                plugin = FullyShardedDataParallelPlugin()
                assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
                assert plugin.state_dict_type.name == "FULL_STATE_DICT" and plugin.cpu_ram_efficient_loading
                assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
            if name.startswith("zero"):
                plugin = DeepSpeedPlugin()
                assert plugin.zero_stage == int(name[-1]) and not plugin.zero3_init_flag
                zero = plugin.deepspeed_config["zero_optimization"]
                assert zero["stage"] == plugin.zero_stage and zero["offload_optimizer"]["device"] == "none"
                assert zero["stage3_gather_16bit_weights_on_model_save"] == (name == "zero3")
                for key in ("gradient_accumulation_steps", "gradient_clipping", "train_micro_batch_size_per_gpu"):
                    assert plugin.deepspeed_config[key] == "auto", "the trainer fills it in"


@pytest.mark.slow
def test_fsdp2_trains_as_one_process_does_and_its_last_checkpoint_is_read_by_one(outputs, monkeypatch):
    one = cells.run("03_lora", GIVEN)
    command = launcher.command

    def on_cpu(*args):
        return [word if word != "helpers.train.worker" else "tests.fsdp_on_cpu" for word in command(*args)]

    monkeypatch.setattr(launcher, "command", on_cpu)
    monkeypatch.setattr(launcher, "check", lambda cfg, machines: None)
    two = cells.run("03_lora", GIVEN | {"launch": "fsdp2", "processes": 2})
    assert two["steps"] == 0 and two["launched"]["steps"] == 6
    checkpoints = next((outputs / "smoke" / "03_lora" / "checkpoints").iterdir())
    assert (checkpoints / "checkpoint-6" / "pytorch_model_fsdp.bin").exists(), "the model was sharded"
    assert _history(two, "loss") == pytest.approx(_history(one, "loss"), rel=1e-4)
    assert _history(two, "grad_norm") == pytest.approx(_history(one, "grad_norm"), rel=2e-3)
    assert _history(two, "eval_loss") == pytest.approx(_history(one, "eval_loss"), rel=1e-4)
    for name, weight in _adapter(two).items():
        torch.testing.assert_close(weight, _adapter(one)[name], rtol=0, atol=2e-4)
    _forget(checkpoints, 6)
    on = cells.run("03_lora", GIVEN | {"launch": "fsdp2", "processes": 2})
    assert on["launched"]["steps"] == 6
    assert _history(on, "loss") == pytest.approx(_history(two, "loss"), rel=1e-4)
    shutil.rmtree(outputs / "smoke" / "03_lora" / "adapter")
    ended = cells.run("03_lora", GIVEN | {"launch": "fsdp2", "processes": 2})
    assert ended["launched"]["loss_after"] == pytest.approx(on["launched"]["loss_after"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_launch_leaves_no_process_and_the_next_goes_on(outputs, blow):
    words = ["03", "--profile", "smoke", *WORDS, "-p", "max_steps=200", "-p", "launch=ddp", "-p", "processes=2"]
    command = [sys.executable, "-m", "helpers.train", *words]
    runner = subprocess.Popen(command, cwd=settings.ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)
    checkpoints = outputs / "smoke" / "03_lora" / "checkpoints"
    _until(lambda: list(checkpoints.glob("*/checkpoint-3/trainer_state.json")), 240)
    family = psutil.Process(runner.pid).children(recursive=True)
    assert len(family) >= 3, "an agent and its two processes"
    runner.send_signal(blow)
    _, said = runner.communicate(timeout=240)
    _until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family), 120)
    if blow == signal.SIGINT:
        assert runner.returncode == 130 and said.strip().startswith("Interrupted. Run the same command again")
    done = max(int(path.parent.name.split("-")[1]) for path in checkpoints.glob("*/*/trainer_state.json"))
    second = subprocess.Popen(command, cwd=settings.ROOT, stdout=subprocess.PIPE)
    first = next(line for line in second.stdout if line.startswith(b"step "))
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=240)
    assert done < int(first.split()[1].split(b"/")[0]) <= done + 10  # logged every ten steps


def _until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
