"""What one training step holds in memory, found by a step that allocates nothing.

In: a `Shape` and how it is trained. Out: a `Footprint` in bytes. transformers' own class, with peft's own adapter, runs
forward and backward on fake tensors, cut to one layer of each kind; every storage that would have been allocated is
counted while it lives. What a layer keeps for its backward pass is then multiplied by the number of layers.
"""

import json
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, astuple, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as TILE

from helpers.files import sha256_json
from helpers.quiet import hide_gptqmodel
from helpers.train.lm_head import DirectLogProb
from helpers.train.shapes import Shape

# The dry runs behind `budget.recommend` as it is called by default: `python -m helpers.train.budget` writes them anew.
STORED = Path(__file__).with_name("footprints.json")


@dataclass(frozen=True)
class Step:
    """How one micro-batch is computed.

    Attributes:
        sequences, tokens: rows in it, and the length to which they are padded.
        learned: share of the tokens that carry loss, 0..1.
        checkpointing: whether each layer's forward pass is made again for its backward pass.
        attention: "eager" or "sdpa".
        dtype: of frozen weights and of products; bfloat16 means autocast.
        trained: dtype of the trained weights.
        rank, dropout, dora, targets: of the adapter; rank 0 trains all weights.
        packed: "nf4" or "int8" for linear layers that are unpacked at each use, else "".
        cuda: whether by a GPU's kernels: TRL's for the head's tiles, PyTorch's for dropout.
    """

    sequences: int
    tokens: int
    learned: float
    checkpointing: bool
    attention: str
    dtype: torch.dtype
    trained: torch.dtype
    rank: int
    dropout: float
    dora: bool
    targets: tuple[str, ...]
    packed: str
    cuda: bool


@dataclass(frozen=True)
class Footprint:
    """Bytes beside weights, gradients and optimiser.

    Attributes:
        layer: kept by one layer for its backward pass.
        outside: kept by the rest: embedded words, masks, the last hidden state.
        forward, head, backward: beyond what is kept, at the highest point of the last layer's forward pass, of the
            head's both passes, and of the last layer's backward pass.
        ending: highest point after that, when nothing of the layers is kept any more, and beyond all gradients.
        ending_again: the same where there are gradients from a micro-batch before.
        adapter: numbers trained in one layer, if it is an adapter.
    """

    layer: int
    outside: int
    forward: int
    head: int
    backward: int
    ending: int
    ending_again: int
    adapter: int


class _Ledger(TorchDispatchMode):
    """Bytes of all storages made while it is active and not yet freed."""

    def __init__(self):
        super().__init__()
        self._sizes: dict[int, int] = {}
        self.now = self.peak = 0
        self.gradients = self.peak_with_gradients = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.enter(tensor)
        return out

    def enter(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += self._sizes[key]
            self.peak = max(self.peak, self.now)
            self.peak_with_gradients = max(self.peak_with_gradients, self.now + self.gradients)
            weakref.finalize(storage, self._leave, key)

    def leave_out(self, tensor: torch.Tensor) -> int:
        """Count it no more: it has a part of its own. Returns its bytes."""
        key = tensor.untyped_storage()._cdata
        size, self._sizes[key] = self._sizes[key], 0
        self.now -= size
        return size

    def leave_out_gradient(self, parameter: torch.Tensor) -> None:
        self.gradients += self.leave_out(parameter.grad)

    def highest(self) -> int:
        """Since the last call."""
        peak, self.peak = self.peak, self.now
        self.peak_with_gradients = self.now + self.gradients
        return peak

    def _leave(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class _Unpacked(torch.autograd.Function):
    """A frozen linear layer that is unpacked whole for each product, as bitsandbytes does where it has no fused kernel;
    LLM.int8 also keeps its input."""

    @staticmethod
    def forward(ctx, x, weight, keep: bool):
        ctx.save_for_backward(weight, *([x] if keep else []))
        return torch.nn.functional.linear(x, weight.clone())

    @staticmethod
    def backward(ctx, grad):
        return grad @ ctx.saved_tensors[0].clone(), None, None


def footprint(shape: Shape, step: Step) -> Footprint:
    """Of one micro-batch of `step` on `shape`. It takes less than a second, or no time if `STORED` has it."""
    stored = _stored().get(_key(shape, step))
    return Footprint(*stored) if stored else dry_run(shape, step)


def store(cases: Iterable[tuple[Shape, Step]]) -> None:
    """Dry-run `cases` and write them to `STORED`, with the versions under which they hold."""
    found = {_key(shape, step): list(astuple(dry_run(shape, step))) for shape, step in cases}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(values)}" for key, values in sorted(found.items()))
    STORED.write_text(f'{{"versions": {json.dumps(_versions())},\n"footprints": {{\n{lines}\n}}}}\n', encoding="utf-8")


def _key(shape: Shape, step: Step) -> str:
    return sha256_json([shape.config, {name: str(value) for name, value in asdict(step).items()}])[:16]


def _versions() -> dict[str, str]:
    return {package: version(package).split("+")[0] for package in ("torch", "transformers", "peft", "trl")}


@cache
def _stored() -> dict[str, list[int]]:
    table = json.loads(STORED.read_text(encoding="utf-8"))
    return table["footprints"] if table["versions"] == _versions() else {}


@cache
def dry_run(shape: Shape, step: Step) -> Footprint:
    """Forward and backward of one micro-batch on fake tensors."""
    # Without checkpointing the first layer keeps less than the others: its input needs no gradient.
    depth = max(shape.kinds(), 1 if step.checkpointing else 2)
    model, adapter = _model(shape, step, depth)
    autocast = torch.autocast("cpu", step.dtype, cache_enabled=False) if step.dtype != torch.float32 else nullcontext()
    with FakeTensorMode(), _Ledger() as ledger, _kernels(step.cuda):
        _materialise(model, ledger)
        base = model.get_base_model() if step.rank else model
        marks = _watch(base.model.layers[-1], ledger)
        ids = torch.zeros(step.sequences, step.tokens, dtype=torch.long)
        ledger.highest()
        with autocast:
            hidden = base.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state
            total, forward = ledger.now, ledger.highest()
            hidden.register_hook(lambda grad: marks.setdefault("head", ledger.highest()) and None)
            loss = _loss(hidden, base, step)
        del hidden
        loss.backward()
        ending, again = ledger.peak_with_gradients - ledger.gradients, ledger.highest()
    layer = marks["after"] - marks["before"]
    return Footprint(
        layer=layer,
        outside=total - depth * layer,
        forward=forward - total,
        head=marks["head"] - total,
        # Where nothing below the last layer is trained, no gradient passes its input.
        backward=marks.get("backward", again) - total,
        ending=ending,
        ending_again=again,
        adapter=adapter // depth,
    )


def _watch(layer: torch.nn.Module, ledger: _Ledger) -> dict[str, int]:
    """Marks of the ledger: before and after the layer's first forward pass, and the highest point of its backward
    pass."""
    marks: dict[str, int] = {}

    def passed(_grad) -> None:
        if "backward" not in marks:
            marks["backward"] = ledger.highest()

    def before(_layer, inputs) -> None:
        if "before" not in marks:  # a checkpointed layer comes twice
            marks["before"] = ledger.now
            if inputs[0].requires_grad:
                inputs[0].register_hook(passed)

    def after(_layer, _inputs, _output) -> None:
        marks.setdefault("after", ledger.now)

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after)
    return marks


@contextmanager
def _kernels(cuda: bool) -> Iterator[None]:
    """On a GPU TRL's kernel works in place on a tile, where what stands for it without Triton makes copies; and dropout
    keeps a byte for each value, where a CPU keeps a factor in the value's own dtype."""
    if not cuda:
        yield
        return
    names = ("_forward_tile", "_backward_tile", "_addmm_fp32")
    with (
        mock.patch.multiple("trl.kernels.chunked_logprob", **dict.fromkeys(names, lambda *_, **__: None)),
        mock.patch("torch.nn.functional.dropout", _dropout_on_cuda),
    ):
        yield


def _dropout_on_cuda(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.native_dropout(x, p, True)[0] if training and p else x


def _model(shape: Shape, step: Step, depth: int):
    # Trained weights are all of one dtype, frozen ones of another.
    model = shape.on_meta(depth, step.attention, step.dtype if step.rank else step.trained)
    if not step.rank:
        model.train()
        if step.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return model, 0
    if step.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    hide_gptqmodel()
    lora = LoraConfig(
        r=step.rank,
        lora_dropout=step.dropout,
        use_dora=step.dora,
        target_modules=list(step.targets),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, lora, low_cpu_mem_usage=True)
    adapter = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(step.trained)
            adapter += parameter.numel()
    model.train()
    if step.checkpointing:
        model.enable_input_require_grads()
    if step.packed:
        for module in model.get_base_model().model.layers.modules():
            if type(module) is torch.nn.Linear and not module.weight.requires_grad:
                _unpack(module, keep=step.packed == "int8")
    return model, adapter


def _unpack(linear: torch.nn.Linear, keep: bool) -> None:
    def forward(x):
        out = _Unpacked.apply(x, linear.weight, keep)
        return out if linear.bias is None else out + linear.bias

    linear.forward = forward


def _materialise(model: torch.nn.Module, ledger: _Ledger) -> None:
    """Fake weights in the meta ones' place, which the ledger leaves out, and their gradients when they come."""
    made: dict[int, torch.nn.Parameter] = {}
    alive = []  # two parameters must not get the same id

    for module in model.modules():
        for name, meta in module._parameters.items():
            if meta is None:
                continue
            if id(meta) not in made:
                alive.append(meta)
                data = torch.empty(meta.shape, dtype=meta.dtype)
                ledger.leave_out(data)
                made[id(meta)] = torch.nn.Parameter(data, requires_grad=meta.requires_grad)
                if meta.requires_grad:
                    made[id(meta)].register_post_accumulate_grad_hook(ledger.leave_out_gradient)
            module._parameters[name] = made[id(meta)]
        for name, meta in module._buffers.items():
            if meta is not None:
                module._buffers[name] = torch.empty(meta.shape, dtype=meta.dtype)


def _loss(hidden: torch.Tensor, base, step: Step) -> torch.Tensor:
    """As TRL's trainers reckon it, on the positions with a label."""
    positions = max(1, round(step.sequences * (step.tokens - 1) * step.learned))
    rows = hidden[:, :-1].reshape(-1, hidden.shape[-1]).index_select(0, torch.arange(positions))
    weight = base.get_output_embeddings().weight
    softcap = getattr(base.config, "final_logit_softcapping", None)
    direct = not step.cuda and softcap is None and not weight.requires_grad
    function = DirectLogProb if direct else ChunkedLogProbFunction
    targets, outputs = torch.zeros(positions, dtype=torch.long), ("log_probs", "entropy", "is_top1")
    return -function.apply(rows, weight, None, targets, 1.0, TILE, softcap, 1.0, outputs)[0].sum()
