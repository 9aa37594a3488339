"""vLLM's own server, `python -m helpers.serve.vllm_process …`, with vLLM's own arguments.

On a CPU three things in it are ours: the arithmetic of adapters (`cpu_lora`), sampling (`cpu_sampling`), and how its
processes wait. vLLM's engine waits for the worker by asking again and again for a second, longer than a step takes: of
two cores it takes one from the arithmetic. Here it sleeps until the worker tells it, and looks by itself every few
milliseconds. vLLM spawns its processes, so each of them imports this module first.
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
    from vllm.lora.punica_wrapper import punica_cpu
    from vllm.v1.sample import sampler

    from helpers.serve.cpu_lora import GroupedLoRA
    from helpers.serve.cpu_sampling import FewCandidates

    shm_broadcast.SpinCondition = SleepingWait
    punica_cpu.PunicaWrapperCPU = GroupedLoRA
    sampler.Sampler = FewCandidates

if __name__ == "__main__":
    from vllm.entrypoints.launchers.api_server.entry import main

    main()
