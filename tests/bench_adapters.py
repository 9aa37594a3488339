"""`make bench`: tokens a second of the newest run's adapters under vLLM on a CPU, as vLLM is and with what is ours
(`helpers/serve/vllm_process.py`), in one go: the same chats, half of them to each of two adapters, greedy and sampled.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench_quantized import OPENINGS, speed

from helpers import records
from helpers.base_model import resolve_base_model
from helpers.persona import LEVELS, load_persona, system_prompt
from helpers.serve.client import ChatClient
from helpers.serve.server import VLLMServer
from helpers.serve.trained import newest_run


class TheirOwn(VLLMServer):
    def command(self) -> list[str]:
        return [
            part.replace("helpers.serve.vllm_process", "vllm.entrypoints.openai.api_server")
            for part in super().command()
        ]


def main() -> None:
    run = newest_run()
    stages = {name: records.load(run, stage) for name, stage in (("lora", "03_lora"), ("dpo", "05_dpo"))}
    record = stages["lora"].record
    card, base = load_persona(record["settings"]["persona"]), resolve_base_model(record["settings"]["base_model"])
    chats = [
        [{"role": "system", "content": system_prompt(card, level)}, {"role": "user", "content": opening}]
        for opening in OPENINGS
        for level in LEVELS
    ]
    adapters = {name: stage.adapter for name, stage in stages.items()}
    ways, rates = {"greedy": 0.0, "sampled": 0.7}, []
    for side in (TheirOwn, VLLMServer):
        with (
            tempfile.TemporaryDirectory() as folder,
            side(base.path, "base", Path(folder), adapters=adapters, max_model_len=1024) as server,
            ThreadPoolExecutor(len(adapters)) as pool,
        ):
            clients = [ChatClient(server.base_url, server.api_key, name, timeout=600) for name in adapters]
            for client in clients:
                client.batch(chats, max_tokens=1)  # each prompt is read once beforehand
            asks = [partial(speed, chats=chats, concurrency=len(chats), temperature=t) for t in ways.values()]
            rates.append([sum(pool.map(ask, clients)) for ask in asks])
        print(
            f"{side.__name__:<12}",
            *(f"{n} {rate:8.1f} tok/s " for n, rate in zip(ways, rates[-1], strict=True)),
            flush=True,
        )
    print("ratio       ", *(f"{name} {ours / theirs:.2f} " for name, theirs, ours in zip(ways, *rates, strict=True)))


if __name__ == "__main__":
    main()
