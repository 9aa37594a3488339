"""How far a vLLM server is in its start, read from its log.

In: the log so far. Out: the stage's number among `STAGES`, and what is done in it.
"""

import re

# What the log says when a stage begins (vLLM 0.32), and what is done in it.
STAGES = (
    (r"\A", "Python imports vLLM"),
    (r"non-default args", "the configuration is read"),
    (r"Initializing a V1 LLM engine", "the engine's processes start"),
    (r"Starting to load model", "the weights are loaded"),
    (r"Loading weights took|Model loading took", "memory is measured and the KV cache laid out"),
    (r"KV cache size", "the model is warmed up"),
    (r"Starting vLLM server on", "the address is opened"),
)
_SHARDS = re.compile(r"checkpoint shards:\s*(\d+)%")


def stage_of(log: str) -> tuple[int, str]:
    """(number from 1, words) of the stage that a start with this log has reached."""
    number = max(n for n, (sign, _) in enumerate(STAGES, 1) if re.search(sign, log))
    words = STAGES[number - 1][1]
    shards = _SHARDS.findall(log)
    return number, f"{words}, {shards[-1]} %" if shards and words == "the weights are loaded" else words
