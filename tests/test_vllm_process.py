"""How vLLM's processes wait for each other on a CPU."""

import subprocess
import sys
import threading

import pytest

zmq = pytest.importorskip("zmq")
shm_broadcast = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast")

from helpers.serve.vllm_process import LOOKS_EVERY, SleepingWait  # noqa: E402


@pytest.fixture
def pair(tmp_path):
    context = zmq.Context()
    address = f"ipc://{tmp_path / 'told'}"
    writer, reader = SleepingWait(False, context, address), SleepingWait(True, context, address)
    yield writer, reader
    context.destroy(linger=0)


def test_who_waits_sleeps_and_looks_by_itself(pair, monkeypatch):
    def spins():
        raise AssertionError("it asks again and again")

    monkeypatch.setattr(shm_broadcast, "sched_yield", spins)
    _, reader = pair
    asked = []
    monkeypatch.setattr(
        reader, "poller", type("Poller", (), {"poll": lambda self, timeout: asked.append(timeout) or {}})()
    )
    reader.record_read()
    for timeout in (None, 60_000, 1):
        reader.wait(timeout)
    assert asked == [LOOKS_EVERY, LOOKS_EVERY, 1]


def test_who_waits_is_woken(pair, monkeypatch):
    writer, reader = pair
    monkeypatch.setattr("helpers.serve.vllm_process.LOOKS_EVERY", 60_000)
    done = threading.Event()
    threading.Thread(target=lambda: (reader.wait(), done.set()), daemon=True).start()
    while not done.wait(0.05):
        writer.notify()  # until the two have found each other
    assert done.is_set()


def test_a_spawned_process_has_what_is_ours(tmp_path):
    """As vLLM's are: it imports what its parent was started with."""
    file = tmp_path / "child.py"
    file.write_text(
        "def say():\n"
        "    from vllm.distributed.device_communicators import shm_broadcast\n"
        "    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU\n"
        "    from vllm.v1.worker.gpu_model_runner import Sampler\n"
        "    print(shm_broadcast.SpinCondition.__name__, PunicaWrapperCPU.__name__, Sampler.__name__)\n"
    )
    code = (
        "import multiprocessing, runpy, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import vllm.entrypoints.launchers.api_server.entry as entry, child\n"
        "def main():\n"
        "    process = multiprocessing.get_context('spawn').Process(target=child.say)\n"
        "    process.start(), process.join()\n"
        "entry.main = main\n"
        "sys.argv = ['vllm_process']\n"
        "runpy._run_module_as_main('helpers.serve.vllm_process', alter_argv=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-3:] == ["SleepingWait", "GroupedLoRA", "FewCandidates"]
