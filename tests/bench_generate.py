"""`make bench`: dialogues asked for through `batch`, and the same requests sent straight to the same vLLM server.

Both sides have the same prompts, seeds, schema and concurrency, and take turns. The server keeps no prompt between them
(no prefix cache), so that the second side does not live on the first one's work.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import openai

from helpers import settings
from helpers.base_model import resolve_base_model
from helpers.conversations import read_conversations
from helpers.data import batch, generate, orders
from helpers.persona import load_persona
from helpers.serve.client import ChatClient
from helpers.serve.server import VLLMServer

NUMBER, CONCURRENCY, ROUNDS = 24, 24, 2


async def straight(server: VLLMServer, requests: list[batch.Request], sampling: dict) -> int:
    """All requests at once through openai's own client; the tokens of the answers."""
    client = openai.AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, timeout=600)

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


def main() -> None:
    cfg = settings.resolve("01_data", {})
    card = load_persona()
    written = read_conversations(settings.ROOT / "data" / "dialogues" / "sakura").conversations
    material = orders.read_material(cfg.path("situations"))
    drawn = orders.draw_orders(material, card, NUMBER, seed=1)
    requests = [order.request(card, written) for order in drawn]
    rates: dict[str, list[float]] = {"through batch": [], "straight": []}
    with tempfile.TemporaryDirectory() as temporary:
        model = resolve_base_model(cfg.base_model).path
        with VLLMServer(model, "base", Path(temporary), max_model_len=4096, prefix_caching=False) as server:
            client = ChatClient(server.base_url, server.api_key, "base", timeout=600, retries=5)
            sampling = {"model": "base", "max_tokens": 200, "temperature": 0.9}
            asyncio.run(straight(server, requests[:2], sampling))  # the schema is compiled once
            for number in range(ROUNDS):
                began = time.perf_counter()
                log = batch.AnswerLog(Path(temporary) / f"{number}.jsonl")
                run = batch.run(requests, client, log, sampling, what="dialogues", concurrency=CONCURRENCY)
                rates["through batch"].append(run.tokens / (time.perf_counter() - began))
                began = time.perf_counter()
                tokens = asyncio.run(straight(server, requests, sampling))
                rates["straight"].append(tokens / (time.perf_counter() - began))
    for name, measured in rates.items():
        print(f"{name:<14}" + "".join(f"{rate:8.1f}" for rate in measured) + "  answer tokens/s")
    ours, theirs = map(statistics.fmean, rates.values())
    print(f"ratio {ours / theirs:.3f}")
    gated = generate.gate(drawn, run.answers, card, written)
    print(f"of {len(run.answers)} answers {len(gated.accepted)} accepted; refused: {dict(gated.by_reason())}")


if __name__ == "__main__":
    main()
