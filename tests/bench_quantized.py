"""`make bench`: tokens a second of the newest run's exports under vLLM, the merged weights and fewer bits, in one go.

Every export answers the same greedy requests, one after the other and all at once, on a server of its own. On a CPU the
4-bit formats compute in bfloat16, the rest in float32 (`server.serving_dtype`).
"""

import json
import tempfile
import time
from pathlib import Path

from helpers import records
from helpers.persona import LEVELS, load_persona, system_prompt
from helpers.serve.client import ChatClient
from helpers.serve.server import ServerError, VLLMServer, serving_dtype
from helpers.serve.trained import STAGE, newest_run

OPENINGS = ("終電、逃しちゃった", "新しい靴買ったんだ", "今日ちょっと落ち込んでる", "何してた？")
MAX_TOKENS, ALONE = 60, 4


def speed(client: ChatClient, chats: list, concurrency: int, temperature: float = 0) -> float:
    """Tokens a second of the replies."""
    began = time.perf_counter()
    replies = client.batch(chats, max_tokens=MAX_TOKENS, temperature=temperature, concurrency=concurrency)
    return sum(reply.tokens for reply in replies) / (time.perf_counter() - began)


def main() -> None:
    stage = records.load(newest_run(), STAGE)
    card = load_persona(stage.record["settings"]["persona"])
    chats = [
        [{"role": "system", "content": system_prompt(card, level)}, {"role": "user", "content": opening}]
        for opening in OPENINGS
        for level in LEVELS
    ]
    first: tuple[float, float] | None = None
    print(f"{'export':<12} {'dtype':<10} {'one by one':>14} {'ratio':>6} {f'{len(chats)} at once':>14} {'ratio':>6}")
    for name in ("merged", *stage.record["metrics"]["quantized"].values()):
        dtype, _ = serving_dtype(json.loads((stage / name / "config.json").read_text(encoding="utf-8")))
        try:
            with (
                tempfile.TemporaryDirectory() as folder,
                VLLMServer(stage / name, card.reading, Path(folder), max_model_len=1024) as server,
            ):
                client = ChatClient(server.base_url, server.api_key, card.reading, timeout=600)
                client.batch(chats, max_tokens=1)  # each prompt is read once beforehand
                found = speed(client, chats[:ALONE], 1), speed(client, chats, len(chats))
        except ServerError as error:
            print(f"{name:<12} not served here: {str(error).splitlines()[-1]}")
            continue
        first = first or found
        alone, together = (f"{rate:8.1f} tok/s {rate / base:6.2f}" for rate, base in zip(found, first, strict=True))
        print(f"{name:<12} {dtype:<10} {alone} {together}", flush=True)


if __name__ == "__main__":
    main()
