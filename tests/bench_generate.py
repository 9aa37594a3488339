"""`make bench`: dialogues asked for through `batch`, and the same requests sent straight to the same vLLM server.

Both sides have the same prompts, seeds and schema, and take turns. `batch` keeps 01's `concurrency` under way, the
other side sends four times as many at once, so that the server always has as many as it can take. It keeps no prompt
between them (no prefix cache): the second side does not live on the first one's work. Ends with 1 if `batch` is more
than a tenth slower.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import openai
import torch

from helpers import settings
from helpers.base_model import resolve_base_model
from helpers.conversations import read_conversations
from helpers.data import batch, generate, orders
from helpers.persona import load_persona
from helpers.serve.client import ChatClient
from helpers.serve.server import VLLMServer

ROUNDS, TIMES = 2, 4  # as many requests as `concurrency` has places
TOKENS = {"cpu": 64, "gpu": 700}  # of an answer at most
LEAST = 0.9  # of the server's own throughput


async def straight(server: VLLMServer, requests: list[batch.Request], sampling: dict) -> int:
    """All requests at once through openai's own client; the tokens of the answers."""
    client = openai.AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, timeout=3600)

    async def ask(request: batch.Request) -> int:
        shape = {"name": "answer", "schema": request.schema, "strict": True}
        answer = await client.chat.completions.create(
            messages=request.messages,
            seed=request.seed,
            response_format={"type": "json_schema", "json_schema": shape},
            **sampling,
        )
        return answer.usage.completion_tokens

    return sum(await asyncio.gather(*map(ask, requests)))


def too_slow(ours: float, theirs: float) -> str:
    """What is wrong with `ours` against `theirs`, in tokens a second; "" if nothing is."""
    return "" if ours >= LEAST * theirs else f"batch has {ours / theirs:.2f} of the server's own throughput"


def main() -> None:
    cfg = settings.resolve("01_data", {"profile": "gpu" if torch.cuda.is_available() else "cpu"})
    card = load_persona()
    written = read_conversations(settings.ROOT / "data" / "dialogues" / "sakura").conversations
    material = orders.read_material(cfg.path("situations"))
    drawn = orders.draw_orders(material, card, TIMES * cfg.concurrency, seed=1)
    requests = [order.request(card, written) for order in drawn]
    rates: dict[str, list[float]] = {"through batch": [], "straight": []}
    with tempfile.TemporaryDirectory() as temporary:
        model = resolve_base_model(cfg.base_model).path
        with VLLMServer(model, "base", Path(temporary), max_model_len=4096, prefix_caching=False) as server:
            client = ChatClient(server.base_url, server.api_key, "base", timeout=600, retries=5)
            sampling = {"model": "base", "max_tokens": TOKENS[cfg.profile], "temperature": 0.9}
            asyncio.run(straight(server, requests[:2], sampling))  # the schema is compiled once
            for number in range(ROUNDS):
                began = time.perf_counter()
                log = batch.AnswerLog(Path(temporary) / f"{number}.jsonl")
                run = batch.run(requests, client, log, sampling, what="dialogues", concurrency=cfg.concurrency)
                rates["through batch"].append(run.written / (time.perf_counter() - began))
                began = time.perf_counter()
                tokens = asyncio.run(straight(server, requests, sampling))
                rates["straight"].append(tokens / (time.perf_counter() - began))
    for name, measured in rates.items():
        print(f"{name:<14}" + "".join(f"{rate:8.1f}" for rate in measured) + "  answer tokens/s")
    ours, theirs = map(statistics.fmean, rates.values())
    print(f"ratio {ours / theirs:.3f}")
    gated = generate.gate(drawn, run.answers, card, written)
    print(f"of {len(run.answers)} answers {len(gated.accepted)} accepted; refused: {dict(gated.by_reason())}")
    sys.exit(too_slow(ours, theirs) or None)


if __name__ == "__main__":
    main()
