"""A served adapter gives way to another while the server runs; who may chat has no say in which.

vLLM's own address for this has everybody who has the key load any folder, and stays off. This ASGI middleware, given to
vLLM as --middleware, follows a file that the server's owner writes, named by the environment variable
COMPANION_ADAPTERS. In: the file, name → folder; none as long as nothing was switched. Out: each request after the file
has changed gets the adapter that it names, under the same name; a reply that has begun is finished by the adapter with
which it began. An adapter that cannot be loaded leaves the one before it, and the log says why.
"""

import asyncio
import json
import logging
import os
from pathlib import Path

from helpers.serve.key_guard import OPEN

VARIABLE = "COMPANION_ADAPTERS"

log = logging.getLogger("vllm.adapter_switch")


class AdapterSwitch:
    """Wraps vLLM's ASGI application, within the guards: only who has the key has the file read."""

    def __init__(self, app):
        self.app = app
        self._file = Path(os.environ[VARIABLE])
        self._followed: tuple[int, int] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            async with self._one_at_a_time:
                await self._follow(scope["app"].state.openai_serving_models)
        await self.app(scope, receive, send)

    async def _follow(self, models) -> None:
        written = _written(self._file)
        if written == self._followed:
            return
        self._followed = written
        for name, folder in json.loads(self._file.read_text(encoding="utf-8")).items() if written else ():
            if models.lora_requests[name].lora_path != folder:
                await _load(models, name, folder)


async def _load(models, name: str, folder: str) -> None:
    """Under a number of its own, beside the one before it: vLLM's replacement in place keeps the number, and what is
    being answered would go on with other weights."""
    from vllm.lora.request import LoRARequest

    before = models.lora_requests[name]
    number = models.lora_id_counter.inc(1)
    request = LoRARequest(name, number, folder, base_model_name=before.base_model_name)
    try:
        await models.engine_client.add_lora(request)
    except Exception as error:  # whatever vLLM finds wrong with the folder; she goes on answering as she did
        log.error("%s stays with %s: %s cannot be loaded: %s", name, before.lora_path, folder, error)
    else:
        models.lora_requests[name] = request
        log.info("%s answers with %s from now on", name, folder)


def _written(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_ino
