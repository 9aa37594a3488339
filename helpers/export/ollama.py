"""Ollama itself, where it is installed: make the model that a Modelfile describes, and ask it.

In: a Modelfile, a chat. Out: her reply, or one sentence that says what Ollama did not do.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from openai import DefaultHttpxClient, OpenAI, OpenAIError


class OllamaError(RuntimeError):
    """Ollama is there, and did not do what it was asked to."""


def unavailable() -> str:
    """Why it cannot be asked, in a sentence; empty if it can."""
    if shutil.which("ollama") is None:
        return "There is no program `ollama` on this machine."
    try:
        _client().models.list()
    except OpenAIError as error:
        return f"No Ollama answers at {_address()} ({error}): start it with `ollama serve`."
    return ""


def create(name: str, modelfile: Path) -> None:
    """Make the model `name`, or make it anew.

    Raises:
        OllamaError: it could not; the message has Ollama's own last line.
    """
    made = subprocess.run(["ollama", "create", name, "-f", modelfile], capture_output=True, text=True, check=False)
    if made.returncode:
        lines = [line for line in made.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise OllamaError(f"ollama create {name} failed: {lines[-1].strip()}")


def greedy_reply(name: str, chat: Sequence[dict[str, str]], max_tokens: int) -> str:
    """Her likeliest reply to `chat`, which ends with a user's turn; the Modelfile's SYSTEM stands in front of it.

    Raises:
        OllamaError: the server did not answer, or with an error.
    """
    try:
        answer = _client().chat.completions.create(
            model=name, messages=list(chat), temperature=0, max_tokens=max_tokens
        )
    except OpenAIError as error:
        raise OllamaError(f"Ollama at {_address()} gave no reply from {name}: {error}") from error
    return answer.choices[0].message.content


def _client() -> OpenAI:
    # trust_env=False: a proxy of the environment must not come between two processes on one machine.
    return OpenAI(base_url=_address(), api_key="ollama", max_retries=0, http_client=DefaultHttpxClient(trust_env=False))


def _address() -> str:
    """Of its OpenAI-compatible API. OLLAMA_HOST may lack the scheme, the port or both, as for Ollama itself."""
    host = os.environ.get("OLLAMA_HOST") or "127.0.0.1"
    parts = urlsplit(host if "://" in host else f"http://{host}")
    name = "127.0.0.1" if parts.hostname == "0.0.0.0" else parts.hostname
    return f"{parts.scheme}://{name}:{parts.port or 11434}/v1"
