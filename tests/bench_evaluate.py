"""`python tests/bench_evaluate.py --run <name>`: how long 08 plays 60 scenarios with five arms of a finished run.

Each `--dtype` is a side: its own server, its own transcripts, the same scenarios, seeds and sampling. Prints minutes,
the start among them, replies and tokens a second; of two sides also their ratio and how many replies are the same.
"""

import argparse
import tempfile
import time
from pathlib import Path

from helpers import records, settings
from helpers.base_model import resolve_base_model
from helpers.evaluate.arms import Evaluation, Transcript
from helpers.evaluate.lineup import line_up
from helpers.evaluate.scenarios import read_scenarios, stratified
from helpers.persona import load_persona
from helpers.serve.client import ChatClient
from helpers.serve.server import VLLMServer

ARMS = "base_bare,base_persona,lora,dpo,routed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="folder below outputs/ with a finished 03 and 05")
    parser.add_argument("--scenarios", type=int, default=60)
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"])
    options = parser.parse_args()
    cfg = settings.resolve("08_evaluate", {"profile": "cpu", "run_name": options.run, "arms": ARMS})
    stage = records.start(cfg)
    base = resolve_base_model(cfg.base_model)
    stage.uses(base, base.load_tokenizer())
    lineup = line_up(cfg.arms, base, stage)
    card = load_persona(cfg.persona)
    script = stratified(read_scenarios(cfg.path("scenarios"), card).scenarios, options.scenarios)
    said: list[list[Transcript]] = []
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        for dtype in options.dtype:
            folder = Path(temporary) / dtype
            evaluation = Evaluation(card, script, folder, 1, cfg.max_tokens, cfg.temperature, cfg.seed)
            played: list[Transcript] = []
            began = time.perf_counter()
            for name, (model, adapters) in lineup.servers.items():
                server = VLLMServer(
                    model, name, folder, adapters=adapters, dtype=dtype, max_model_len=cfg.max_model_len
                )
                with server:
                    arms = evaluation.play(lineup.on(name), ChatClient(server.base_url, server.api_key, name).reply)
                played += [talk for talks in arms.values() for talk in talks]
            seconds.append(time.perf_counter() - began)
            said.append(played)
            replies = [reply for talk in played for reply in talk.replies]
            tokens = sum(reply.tokens for reply in replies)
            print(
                f"{dtype:<9} {len(script)} scenarios, {len(lineup.arms)} arms: {len(replies)} replies in "
                f"{seconds[-1] / 60:.1f} min, with the start; {tokens / seconds[-1]:.0f} tokens/s",
                flush=True,
            )
    if len(said) == 2:
        same = [a.text == b.text for x, y in zip(*said, strict=True) for a, b in zip(x.replies, y.replies, strict=True)]
        print(f"ratio {seconds[1] / seconds[0]:.2f}; {sum(same)} of {len(same)} replies are the same")


if __name__ == "__main__":
    main()
