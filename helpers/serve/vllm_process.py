"""vLLM's own server, `python -m helpers.serve.vllm_process …`, with vLLM's own arguments.

On a CPU its engine waits for the worker by asking again and again for a second, longer than a step takes: of two cores
it takes one from the arithmetic. Here it sleeps until the worker tells it, and looks by itself every few milliseconds.
vLLM spawns its processes, so each of them imports this module first.
"""

import torch
from vllm.distributed.device_communicators import shm_broadcast

LOOKS_EVERY = 5  # milliseconds


class SleepingWait(shm_broadcast.SpinCondition):
    """As vLLM's own after a second without a message: asleep from the start."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.busy_loop_s = -1.0

    def wait(self, timeout_ms: int | None = None) -> None:
        super().wait(LOOKS_EVERY if timeout_ms is None else min(timeout_ms, LOOKS_EVERY))


if not torch.cuda.is_available():
    shm_broadcast.SpinCondition = SleepingWait

if __name__ == "__main__":
    from vllm.entrypoints.launchers.api_server.entry import main

    main()
