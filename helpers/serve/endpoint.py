"""Whom to ask: somebody's endpoint, or a vLLM server of our own for as long as it takes.

In: what a notebook's parameters say. Out: a client, and the hash of the weights that answer it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.base_model import resolve_base_model
from helpers.serve.client import ChatClient
from helpers.serve.server import VLLMServer

OWN = "own"
KEY = "COMPANION_ENDPOINT_KEY"


@contextmanager
def endpoint_client(
    endpoint: str, model: str | None, base_model: str, logs: Path, **options
) -> Iterator[tuple[ChatClient, str]]:
    """A client of `endpoint`, with the hash of its weights, "" where nobody tells.

    Args:
        endpoint: an address ending in /v1, whose key is in the environment's COMPANION_ENDPOINT_KEY; or "own".
        model: its name there; for our own server a folder or a hub id, and None for `base_model`.
        options: of our own server, as `VLLMServer` takes them.

    Raises:
        ValueError: see `client_of`.
    """
    if endpoint == OWN:
        base = resolve_base_model(model or base_model)
        with VLLMServer(base.path, "judge", logs, **options) as server:
            # On a CPU 48 answers of 700 tokens that are written at once take a quarter of an hour each.
            yield ChatClient(server.base_url, server.api_key, "judge", timeout=3600, retries=5), base.sha256
        return
    yield client_of(endpoint, model), ""


def client_of(endpoint: str, model: str | None) -> ChatClient:
    """A client of somebody's `endpoint`, an address ending in /v1, whose key is in the environment's
    COMPANION_ENDPOINT_KEY.

    Raises:
        ValueError: no name of a model there, or no key.
    """
    if not model:
        raise ValueError(f"Which model at {endpoint}? Give its name there.")
    if not os.environ.get(KEY):
        raise ValueError(f"{KEY} is not set: it holds the key of {endpoint} (any word, if it wants none).")
    return ChatClient(endpoint, os.environ[KEY], model, retries=5)
