"""Starts and stops of a server, among them kill -9 of every process that has a part in it.

`python tests/stress_server.py [--starts 50] [--light] [--only KIND,…]` prints a line for each start and fails if
anything is left after one: a process, a port, shared memory, a semaphore, a temporary file. The server is vLLM with two
random layers; with --light it is the stand-in of `dummy_server.py`.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from jupyter_client.manager import start_new_kernel

from helpers import course
from helpers.files import write_atomically
from helpers.serve.client import ChatClient
from helpers.serve.server import VLLMServer, pick_port, port_is_free
from helpers.serve.startup import STAGES, stage_of
from helpers.serve.watchdog import LOOK
from helpers.settings import ROOT

TESTS = Path(__file__).parent
MARK = "COMPANION_STRESS"  # in the environment of every process that has to be gone
RUNS = 300  # seconds that anything may take


class DummyServer(VLLMServer):
    """The real class around a stand-in for vLLM, started for adapters of rank 16."""

    grace, look = 0.3, 0.05

    def command(self):
        self._max_lora_rank = 16
        program = [sys.executable, str(TESTS / "dummy_server.py")]
        return [*program, str(self.port), str(self.pids_file), self.name, *self.adapters]

    @property
    def pids_file(self):
        return self.log_file.with_suffix(".pids")

    @property
    def pids(self):
        return [int(pid) for pid in self.pids_file.read_text().split()]


@dataclasses.dataclass
class Scene:
    """One start: where it happens, and with which server."""

    folder: Path
    model: Path
    light: bool
    round: int = 0
    port: int = 18400

    def server(self, **options) -> VLLMServer:
        kind = DummyServer if self.light else VLLMServer
        options = {"port": pick_port(self.port)[0], "max_model_len": 512} | options
        return kind(self.model, "stress", self.folder, **options)

    def log(self) -> str:
        file = self.folder / "vllm-stress.log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def half(self) -> int:
        """The stage of the start in which it is cut off; another one in each round."""
        return (1, 4, 3, 2)[self.round % 4]

    def owner(self, how: str = "own") -> "Owner":
        """A process that starts the server and keeps it; with "run", the course's runner with such a kernel."""
        command = [sys.executable, str(Path(__file__)), how, self.spec()]
        return Owner(self, subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}))

    def spec(self) -> str:
        """A file that tells another process of this scene."""
        fields = dataclasses.asdict(self) | {"folder": str(self.folder), "model": str(self.model)}
        write_atomically(self.folder / "scene.json", json.dumps(fields))
        return str(self.folder / "scene.json")


class Owner:
    """Another process that owns the server of a scene."""

    def __init__(self, scene: Scene, process: subprocess.Popen):
        self.process, self._scene = process, scene

    def wait_for_server(self) -> None:
        wait_until((self._scene.folder / "owner.json").exists)

    def wait_for_stage(self, number: int) -> None:
        wait_until(lambda: (log := self._scene.log()) and stage_of(log)[0] >= number)

    def end(self, number: int) -> None:
        """By this signal."""
        self.process.send_signal(number)
        self.process.wait(RUNS)


def own(scene: Scene) -> None:
    """Start a server, say where it is, and stay."""
    server = scene.server().start()
    write_atomically(scene.folder / "owner.json", json.dumps({"port": server.port}))
    time.sleep(600)


def run(scene: Scene, spec: str) -> None:
    """The course's own runner, on a stage whose notebook owns the server."""
    course.NOTEBOOKS = scene.folder / "notebooks"
    course.NOTEBOOKS.mkdir()
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [cell | {"source": kernel_code(spec)}]
    notebook = {"cells": cells, "metadata": {"kernelspec": {"name": "python3", "display_name": "", "language": ""}}}
    (course.NOTEBOOKS / "07_serve_vllm.ipynb").write_text(json.dumps(notebook | {"nbformat": 4, "nbformat_minor": 5}))
    course.run_stage(scene.folder / "run", "07_serve_vllm", {})


def kernel_code(spec: str) -> str:
    path = f"import sys; sys.path.insert(0, {str(TESTS)!r})"
    return f"{path}\nimport stress_server; stress_server.main(['own', {spec!r}])"


def wait_until(happened: Callable[[], bool], seconds: float = RUNS) -> None:
    until = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(0.02)


@contextlib.contextmanager
def while_starting(server: VLLMServer, number: int, act: Callable[[], None]) -> Iterator[None]:
    """Has a thread `act` when the start of `server` has reached this stage, or a later one."""
    reached = tuple(words for _, words in STAGES[number - 1 :])

    def wait() -> None:
        wait_until(lambda: (health := server.health()).state == "starting" and health.stage.startswith(reached))
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    yield
    thread.join(RUNS)


def children(process: psutil.Process) -> list[psutil.Process]:
    return [c for c in process.children() if "resource_tracker" not in " ".join(c.cmdline())]


def part(server: VLLMServer, name: str) -> psutil.Process:
    """The process of a running server that has this part."""
    watchdog = psutil.Process(server._watchdog.pid)
    below = children(watchdog)
    (guard,) = [c for c in below if c.cmdline() == watchdog.cmdline()]
    (api,) = [c for c in below if c != guard]
    engine = children(api)[0]
    return {"watchdog": watchdog, "guard": guard, "api": api, "engine": engine}.get(name) or children(engine)[0]


# What can become of a server. Each takes a scene and returns the server's port.


def stopped(scene: Scene) -> int:
    server = scene.server().start()
    server.stop()
    return server.port


def stopped_in_mid_reply(scene: Scene) -> int:
    server, replies = scene.server().start(), []
    client = ChatClient(server.base_url, server.api_key, "stress")

    def ask() -> None:
        replies.append(client.reply([{"role": "user", "content": "やあ"}], max_tokens=60, extra={"ignore_eos": True}))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: server.metrics().running == 1)
    server.stop()
    thread.join()
    assert [reply.tokens for reply in replies] == [60], "the reply was cut off"
    return server.port


def error_in_the_block(scene: Scene) -> int:
    with contextlib.suppress(ZeroDivisionError), scene.server() as server:
        1 / 0  # noqa: B018
    return server.port


def killed(name: str) -> Callable[[Scene], int]:
    def kind(scene: Scene) -> int:
        server = scene.server().start()
        part(server, name).kill()
        if name in ("watchdog", "api") or (name != "guard" and not scene.light):
            wait_until(lambda: not server.running)
            assert server.health().state == "ended"
        server.stop()
        return server.port

    return kind


def all_killed(scene: Scene) -> int:
    server = scene.server().start()
    time.sleep(8 * LOOK)  # whose the newest shared memory was is not known before the watchdog's next look
    os.killpg(part(server, "api").pid, signal.SIGKILL)
    wait_until(lambda: not server.running)
    server.stop()
    return server.port


def owner_ended(number: int) -> Callable[[Scene], int]:
    def kind(scene: Scene) -> int:
        owner = scene.owner()
        owner.wait_for_server()
        owner.end(number)
        return scene.port

    return kind


def owner_killed_half_way(scene: Scene) -> int:
    owner = scene.owner()
    owner.wait_for_stage(scene.half)
    owner.end(signal.SIGKILL)
    return scene.port


def kernel_killed(scene: Scene) -> int:
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT), env=dict(os.environ))
    client.execute(kernel_code(scene.spec()))
    wait_until((scene.folder / "owner.json").exists)
    os.kill(manager.provisioner.pid, signal.SIGKILL)
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    return scene.port


def runner_killed(scene: Scene) -> int:
    owner = scene.owner("run")
    owner.wait_for_server()
    owner.end(signal.SIGKILL)
    return scene.port


def start_interrupted(scene: Scene) -> int:
    server = scene.server()
    with (
        contextlib.suppress(KeyboardInterrupt),
        while_starting(server, scene.half, lambda: os.kill(os.getpid(), signal.SIGINT)),
    ):
        server.start()
        raise AssertionError("the start was not interrupted")
    assert server.health().state == "stopped"
    return server.port


def port_in_use(scene: Scene) -> int:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with scene.server(port=port) as server:
            assert server.port != port and str(port) in server.port_note
    return server.port


def port_stolen_before_it_is_bound(scene: Scene) -> int:
    return _stolen(scene, 1)


def port_stolen_before_it_is_listened_at(scene: Scene) -> int:
    return _stolen(scene, 4)


def _stolen(scene: Scene, stage: int) -> int:
    server, thieves = scene.server(), []
    port = server.port

    def steal() -> None:
        thieves.append(socket.create_server(("127.0.0.1", port)))
        if held := os.environ.get("DUMMY_HOLD"):
            Path(held).touch()

    with while_starting(server, stage, steal):
        server.start()
    assert server.port != port and str(port) in server.port_note
    server.stop()
    thieves[0].close()
    return server.port


KINDS: dict[str, Callable[[Scene], int]] = {
    "stopped": stopped,
    "stopped in mid-reply": stopped_in_mid_reply,
    "error in the block": error_in_the_block,
    "kill -9 API process": killed("api"),
    "kill -9 engine": killed("engine"),
    "kill -9 worker": killed("worker"),
    "kill -9 all its processes": all_killed,
    "kill -9 watchdog": killed("watchdog"),
    "kill -9 guard": killed("guard"),
    "kill -9 owner": owner_ended(signal.SIGKILL),
    "TERM owner": owner_ended(signal.SIGTERM),
    "kill -9 kernel": kernel_killed,
    "kill -9 runner": runner_killed,
    "interrupted half way": start_interrupted,
    "kill -9 owner half way": owner_killed_half_way,
    "port in use": port_in_use,
    "port stolen, early": port_stolen_before_it_is_bound,
    "port stolen, late": port_stolen_before_it_is_listened_at,
}
# The stand-in has no worker, cuts replies off, and listens as soon as it binds.
LIGHT = [k for k in KINDS if k not in ("kill -9 worker", "stopped in mid-reply", "port stolen, late")]


class Watch:
    """What is on the machine, so that it can be said what a start has left there."""

    def __init__(self, temporary: Path):
        self.mark, self.temporary = secrets.token_hex(8), temporary
        self._before = self._shared()

    @contextlib.contextmanager
    def marked(self) -> Iterator[None]:
        """Processes begun in the block carry the mark and put temporary files where they can be seen."""
        with _environment({MARK: self.mark, "TMPDIR": str(self.temporary)}):
            yield

    def left(self, port: int) -> list[str]:
        """What is there that was not, in words."""
        found = self._processes()
        found += [] if port_is_free(port) else [f"port {port}"]
        if new := self._shared() - self._before:
            found += sorted(new - self._of_others())
        # A kernel's connection file is Jupyter's.
        return found + [str(path) for path in self.temporary.iterdir() if path.suffix != ".json"]

    def _processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it has just ended, or is nobody's
                if process.pid != os.getpid() and process.environ().get(MARK) == self.mark:
                    found.append(f"process {process.pid} {' '.join(process.cmdline())[:60]}")
        return found

    def _of_others(self) -> set[str]:
        """Shared memory that a living process has which does not carry the mark: another program's."""
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) != self.mark:
                    found |= {m.path for m in process.memory_maps() if m.path.startswith("/dev/shm/")}
        return found

    @staticmethod
    def _shared() -> set[str]:
        found = {str(path) for path in Path("/dev/shm").iterdir()}
        for kind in ("shm", "sem", "msg"):  # System V
            lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
            found |= {f"System V {kind} {line.split()[1]}" for line in lines}
        return found


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclasses.dataclass
class Outcome:
    kind: str
    seconds: float
    cleared: float  # seconds after which nothing was left
    left: list[str]

    def line(self, number: int) -> str:
        left = "nothing left" if not self.left else "LEFT: " + "; ".join(self.left)
        return f"{number:3}  {self.kind:<28} {self.seconds:6.1f} s  {self.cleared:5.2f} s  {left}"


def play(kind: str, model: Path, light: bool, number: int = 0, patience: float = 20) -> Outcome:
    """One start and its end, and what is left within `patience` seconds after it."""
    with tempfile.TemporaryDirectory() as folder:
        temporary, place = Path(folder) / "tmp", Path(folder) / "scene"
        temporary.mkdir()
        place.mkdir()
        watch = Watch(temporary)
        began = time.monotonic()
        slow = {"DUMMY_START": "0.5", "DUMMY_HOLD": str(place / "go on")}
        scene, failed = Scene(place, model, light, number, port=pick_port(18400)[0]), []
        port = scene.port
        with watch.marked(), _environment(slow if "half way" in kind or "stolen" in kind else {}):
            try:
                port = KINDS[kind](scene)
            except Exception as error:  # a line of the table; the next start is another one
                failed = [f"FAILED {type(error).__name__}: {error}\n{scene.log()[-4000:]}"]
        ended = time.monotonic()
        while (left := watch.left(port)) and time.monotonic() < ended + patience:
            time.sleep(0.05)
        return Outcome(kind, ended - began, time.monotonic() - ended, failed + left)


def model_for_stress(folder: Path) -> Path:
    """Two random layers and a small tokenizer without a chat template, in `folder`."""
    from small import small_base

    return small_base(folder, heads=2).path


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] in (["own"], ["run"]):
        fields = json.loads(Path(words[1]).read_text())
        scene = Scene(**fields | {"folder": Path(fields["folder"]), "model": Path(fields["model"])})
        own(scene) if words[0] == "own" else run(scene, words[1])
        return 0
    parser = argparse.ArgumentParser(prog="python tests/stress_server.py", description=__doc__.split("\n")[0])
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--light", action="store_true", help="the stand-in instead of vLLM")
    parser.add_argument("--only", help="kinds, separated by commas")
    options = parser.parse_args(words)
    kinds = options.only.split(",") if options.only else (LIGHT if options.light else list(KINDS))
    # A shell that starts a program in the background has it ignore Ctrl-C, which is one of the kinds.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(f"{'':3}  {'what became of it':<28} {'took':>8}  {'cleared':>7}  left on the machine", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) if options.light else model_for_stress(Path(folder))
        for number, kind in zip(range(options.starts), itertools.cycle(kinds), strict=False):
            outcome = play(kind, model, options.light, number // len(kinds))
            bad += bool(outcome.left)
            print(outcome.line(number + 1), flush=True)
    print(f"{options.starts} starts, {bad} left something")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
