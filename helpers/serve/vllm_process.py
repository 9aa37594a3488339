"""vLLM's own server, `python -m helpers.serve.vllm_process …`, with vLLM's own arguments.

Two adapters of one name answer side by side while one gives way to another (`adapter_switch`): vLLM, which tells them
apart by their names, would lose one of them. On a CPU three more things are ours: the arithmetic of adapters
(`cpu_lora`), sampling (`cpu_sampling`), and how its processes wait. vLLM's engine waits for the worker by asking again
and again for a second, longer than a step takes: of two cores it takes one from the arithmetic. Here it sleeps until
the worker tells it, and looks by itself every few milliseconds. vLLM spawns its processes, so each of them imports this
module first.
"""

import torch
from vllm.distributed.device_communicators import shm_broadcast
from vllm.lora.request import LoRARequest

LOOKS_EVERY = 5  # milliseconds


class SleepingWait(shm_broadcast.SpinCondition):
    """As vLLM's own after a second without a message: asleep from the start."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.busy_loop_s = -1.0

    def wait(self, timeout_ms: int | None = None) -> None:
        super().wait(LOOKS_EVERY if timeout_ms is None else min(timeout_ms, LOOKS_EVERY))


LoRARequest.__eq__ = lambda self, other: isinstance(other, LoRARequest) and self.lora_int_id == other.lora_int_id
LoRARequest.__hash__ = lambda self: hash(self.lora_int_id)

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
