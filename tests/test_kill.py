"""Kill -9 at any moment, run again: the losses and the weights are those of a run that was never cut off."""

import itertools
import json
import multiprocessing
import signal

import pytest
import torch
from kill_run import STEPS, train
from safetensors.torch import load_file
from small import small_base

WAIT = 300  # seconds; a run takes about three


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    """A function that starts a run of `train` in a process of its own. The libraries are imported once, in a process
    that computes nothing and from which the others are forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.train.dpo", "peft"])
    base = str(small_base(tmp_path_factory.mktemp("base")).path)

    def start(method, folder, **how):
        folder.mkdir(exist_ok=True)
        process = context.Process(target=train, args=(method, base, folder), kwargs=how)
        process.start()
        return process

    return start


def _to_its_end(process) -> None:
    process.join(WAIT)
    assert process.exitcode == 0


def _killed(process) -> bool:
    """Whether the process killed itself; else it must have come to its end."""
    process.join(WAIT)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _entries(folder) -> list[dict]:
    file = folder / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _reached(folder, step: int) -> bool:
    return any(entry["step"] >= step for entry in _entries(folder) if "loss" in entry)


@pytest.fixture(scope="module", params=["lora", "full", "dpo"])
def whole(request, begin, tmp_path_factory):
    """(method, folder) of a run that nothing cuts off."""
    folder = tmp_path_factory.mktemp(request.param)
    _to_its_end(begin(request.param, folder))
    assert sorted({e["step"] for e in _entries(folder) if "loss" in e}) == list(range(1, STEPS + 1))
    return request.param, folder


def _assert_same(folder, whole) -> None:
    """Everything logged in any life of the run, and what was saved at its end, is the uninterrupted run's."""
    logged = {(entry["step"], *entry): entry for entry in _entries(whole)}
    found = _entries(folder)
    assert {(entry["step"], *entry) for entry in found} == set(logged)
    for entry in found:
        assert entry == pytest.approx(logged[entry["step"], *entry], abs=1e-5), entry["step"]
    ours, theirs = (load_file(next((f / "trained").glob("*.safetensors"))) for f in (folder, whole))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_killed_after_a_step_and_in_the_middle_of_a_checkpoint(whole, begin, tmp_path):
    method, uncut = whole
    run = tmp_path / "run"
    assert _killed(begin(method, run, die_after=3))
    assert _killed(begin(method, run, die_at=4, die_in="checkpoint-6"))
    assert _reached(run, 6) and not _reached(run, 7)
    _to_its_end(begin(method, run))
    _assert_same(run, uncut)


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_after_any_step(whole, begin, tmp_path, step):
    method, uncut = whole
    assert _killed(begin(method, tmp_path, die_after=step))
    _to_its_end(begin(method, tmp_path))
    _assert_same(tmp_path, uncut)


@pytest.mark.slow
def test_killed_at_any_change_to_the_checkpoints(whole, begin, tmp_path):
    method, uncut = whole
    for change in itertools.count(1):
        run = tmp_path / f"{change}"
        if not _killed(begin(method, run, die_at=change)):
            break
        _to_its_end(begin(method, run))
        _assert_same(run, uncut)
    assert change > 40
