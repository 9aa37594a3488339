"""A launched process in which accelerate shards by FSDP2 on a CPU, which it offers for accelerators only.

In: the command line of `helpers.train.worker`. It differs from that module in two things. While accelerate asks whether
FSDP may be used, gloo on the CPU passes for NCCL on GPUs. And gathered tensors are waited for, which on a GPU the copy
to main memory does.
"""

import runpy

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.checkpoint import state_dict
from torch.utils._pytree import tree_map

_initialise, _gather = AcceleratorState.__init__, state_dict._maybe_full_or_cpu_state_dict


def _with_fsdp(self, *args, **kwargs):
    if not AcceleratorState._shared_state:
        PartialState(cpu=True)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    _initialise(self, *args, **kwargs)


def _gathered(*args, **kwargs):
    return tree_map(lambda v: v.wait() if isinstance(v, AsyncCollectiveTensor) else v, _gather(*args, **kwargs))


AcceleratorState.__init__ = _with_fsdp
state_dict._maybe_full_or_cpu_state_dict = _gathered
runpy.run_module("helpers.train.worker", run_name="__main__", alter_sys=True)
