"""How much memory a training run will hold at its peak, before anything is loaded.

In: a model's shape and a run's settings. Out: a `Budget` in parts, up to three settings that fit a given memory, and
the table of which recommended model fits which card. Weights are counted on the meta device, activations by a dry run
(`helpers.train.footprint`). tests/test_budget.py compares those of LoRA and of all weights with measured ones on a CPU
in float32. **Those of DPO, of packed bases, in bfloat16 and on a GPU have not been**, and `OVERHEAD` is an assumption.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import psutil
import torch

from helpers.families import FAMILIES
from helpers.settings import Settings
from helpers.train.footprint import Footprint, Step, footprint, store
from helpers.train.optimizers import choose_optimizer
from helpers.train.shapes import PUBLISHED, Shape, Weights, count, published_shape

GIB = 2**30
METHODS = ("lora", "qlora", "int8", "full", "dpo")
PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead")
# What a process holds besides: Python and its libraries; on a GPU CUDA's context, cuBLAS's workspace and the blocks
# that the allocator cannot use. Assumed.
OVERHEAD = {"cpu": 1.0 * GIB, "cuda": 1.5 * GIB}
# Bytes of state for each trained number of so many bytes: two moments of its own type, or two of one byte with a
# float32 scale for every 256. Paged state is counted as if all of it were on the device.
STATE = {
    "adamw": lambda size: 2 * size,
    "paged_8bit": lambda size: 2 + 8 / 256,
    "stochastic_8bit": lambda size: 2 + 8 / 256,
}
CONTEXTS = (32768, 16384, 8192, 4096, 2048, 1024, 512, 256)
# To what a method may give way, from better to thriftier.
THRIFTIER = {"full": ("lora", "int8", "qlora"), "lora": ("int8", "qlora"), "int8": ("qlora",), "qlora": (), "dpo": ()}


@dataclass(frozen=True)
class Plan:
    """A training run, as far as its memory goes.

    Attributes:
        method: lora (frozen base in `dtype`), qlora (NF4 with double quantization), int8 (LLM.int8), full (all
            weights), dpo (lora, with a frozen copy of the SFT adapter; each row is two sequences).
        context: tokens of the longest row.
        micro_batch: rows computed at once; gradients of `accumulation` of them make one step.
        checkpointing: whether activations are computed again instead of kept.
        optimizer: as in `helpers.train.optimizers`.
        device: "cpu" or "cuda"; decides dtype of trained weights and which head is used.
        learned: share of the tokens that carry loss, 0..1.
        packing: whether rows are filled up to `context` with whole examples. TRL lays those of a micro-batch end to
            end: one sequence, across all of which attention without a flash kernel reckons.
        overhead: bytes besides the run's own; None takes `OVERHEAD`.
    """

    shape: Shape
    targets: tuple[str, ...]
    method: str = "lora"
    context: int = 2048
    micro_batch: int = 1
    accumulation: int = 1
    checkpointing: bool = True
    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16
    attention: str = "sdpa"
    lora_r: int = 64
    lora_dropout: float = 0.0
    optimizer: str = "auto"
    dora: bool = False
    learned: float = 0.5
    packing: bool = False
    overhead: float | None = None

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"There is no training method {self.method!r}: name one of {', '.join(METHODS)}.")


@dataclass(frozen=True)
class Budget:
    """Predicted peak of `plan`: bytes by part, which are all there at the same moment."""

    plan: Plan
    parts: dict[str, float]

    @property
    def gib(self) -> float:
        return sum(self.parts.values()) / GIB

    @property
    def own_gib(self) -> float:
        """Without overhead: what PyTorch itself asks for."""
        return self.gib - self.parts["overhead"] / GIB

    def fits(self, card_gib: float) -> bool:
        return self.gib <= card_gib


@dataclass(frozen=True)
class Row:
    """A row of `recommend`'s table."""

    family: str
    checkpoint: str
    billions: float
    method: str
    context: int
    micro_batch: int
    gib: float
    fits: bool


@dataclass(frozen=True)
class Claim:
    """A figure of the guide about memory, and the plan that it is about."""

    text: str
    gib: float
    checkpoint: str
    method: str
    context: int
    micro_batch: int


# guide.ja.md, training, methods 2 and 3; its script trains with micro-batches of 4 at 2,048 tokens.
GUIDE = (
    Claim("7B QLoRA in 8 GB", 8, "Qwen/Qwen2.5-7B-Instruct", "qlora", 2048, 4),
    Claim("7B full fine-tuning: about 40 GB", 40, "Qwen/Qwen2.5-7B-Instruct", "full", 2048, 4),
)


def predict(plan: Plan) -> Budget:
    """The budget of `plan`, at the highest of two moments: with all activations kept, before the gradients have come,
    and with all gradients, when the activations are gone."""
    weights = count(plan.shape)
    trained_size, step = _trained_dtype(plan).itemsize, _step(plan)
    marks = footprint(plan.shape, step)
    trained = weights.total if plan.method == "full" else weights.layers * marks.adapter
    fixed = {
        "weights": 0 if plan.method == "full" else _frozen_bytes(plan, weights),
        "adapter": 0 if plan.method == "full" else trained * trained_size * (2 if plan.method == "dpo" else 1),
        "optimizer": trained * STATE[_optimizer(plan)](trained_size),
        "overhead": OVERHEAD[plan.device] if plan.overhead is None else plan.overhead,
    }
    if plan.method == "full":
        fixed["weights"] = trained * trained_size
    gradients = trained * trained_size
    moments = [
        fixed | {"gradients": early} | working
        for early, working in (
            (_early_gradients(plan, weights, gradients, trained_size), _while_kept(marks, weights)),
            (gradients, _at_the_end(plan, marks)),
        )
    ]
    highest = max(moments, key=lambda parts: sum(parts.values()))
    return Budget(plan, {part: highest[part] for part in PARTS})


def weights_gib(plan: Plan) -> float:
    """GiB of the base's weights, held as `plan` holds them."""
    return _frozen_bytes(plan, count(plan.shape)) / GIB


def plan_for(settings: Settings, shape: Shape, targets: Sequence[str], method: str, **given) -> Plan:
    """The plan of a stage's settings, as `helpers.train.sft` and `dpo` will train. `given` overrides fields of `Plan`;
    `context` is `max_length` if it is not given."""
    hardware = settings.hardware
    values = {
        "context": settings.max_length,
        "micro_batch": settings.batch_size,
        "accumulation": settings.gradient_accumulation,
        "checkpointing": hardware.device == "cuda",
        "device": hardware.device,
        "dtype": hardware.dtype,
        "attention": hardware.attention,
        "packing": getattr(settings, "packing", False),
        "lora_r": getattr(settings, "lora_r", 64),
        "lora_dropout": getattr(settings, "lora_dropout", 0.0),
        "dora": getattr(settings, "lora_variant", "lora") == "dora",
        "optimizer": getattr(settings, "optimizer", "adamw"),
    }
    return Plan(shape=shape, targets=tuple(targets), method=method, **(values | given))


def settings_that_fit(plan: Plan, card_gib: float) -> list[Budget]:
    """Up to three plans near `plan` that fit into `card_gib`, best first: the largest smaller micro-batch; the longest
    shorter context; a thriftier method with the largest micro-batch and context that it allows. `plan` itself is not
    among them."""
    found: list[Budget] = []
    for plans in (_smaller_batches(plan), _shorter_contexts(plan), _thriftier(plan)):
        fitting = (budget for budget in map(predict, plans) if budget.fits(card_gib))
        budget = next(fitting, None)
        if budget and budget.plan not in [other.plan for other in found]:
            found.append(budget)
    return found


def recommend(
    card_gib: float,
    methods: Sequence[str] = METHODS,
    contexts: Sequence[int] = (2048,),
    micro_batch: int = 1,
    device: str = "cuda",
    **given,
) -> list[Row]:
    """Which model for a card of `card_gib`: a row for each family, checkpoint whose shape is known, method and context.
    Nothing is loaded. `given` goes to `Plan`."""
    rows = []
    for family in FAMILIES.values():
        for checkpoint, billions in family.checkpoints.items():
            for method in methods if checkpoint in PUBLISHED else ():
                for context in contexts:
                    budget = predict(published_plan(checkpoint, method, context, micro_batch, device=device, **given))
                    rows.append(
                        Row(
                            family.name,
                            checkpoint,
                            billions,
                            method,
                            context,
                            micro_batch,
                            budget.gib,
                            budget.fits(card_gib),
                        )
                    )
    return rows


def published_plan(checkpoint: str, method: str, context: int, micro_batch: int, **given) -> Plan:
    """The plan of a recommended checkpoint, with the rank of the profile `gpu`.

    Raises:
        KeyError: its shape is not known.
    """
    shape = dataclasses.replace(published_shape(checkpoint), name="")  # those of one shape share a dry run
    family = next(f for f in FAMILIES.values() if checkpoint in f.checkpoints)
    return Plan(shape, family.lora_targets, method, context, micro_batch, **given)


def check_guide() -> list[tuple[Claim, Budget]]:
    """Each claim of the guide with the budget of what it is about."""
    return [(c, predict(published_plan(c.checkpoint, c.method, c.context, c.micro_batch))) for c in GUIDE]


def memory_at_hand(device: str) -> float:
    """GiB that this process can have: what is free, and what it holds already (on a GPU by PyTorch's allocator)."""
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return (free + torch.cuda.memory_reserved()) / GIB
    return (psutil.virtual_memory().available + psutil.Process().memory_info().rss) / GIB


def _trained_dtype(plan: Plan) -> torch.dtype:
    """peft makes an adapter float32, TRL makes it bfloat16 on a packed base; all weights are trained as loaded by
    `sft.load_base`."""
    if plan.method in ("qlora", "int8"):
        return torch.bfloat16
    return plan.dtype if plan.method == "full" and plan.device == "cuda" else torch.float32


def _optimizer(plan: Plan) -> str:
    full = plan.method == "full"
    model = SimpleNamespace(
        dtype=_trained_dtype(plan) if full else plan.dtype, is_quantized=plan.method in ("qlora", "int8")
    )
    return choose_optimizer(plan.optimizer, SimpleNamespace(device=plan.device), model, full)[0]


def _step(plan: Plan) -> Step:
    rows = plan.micro_batch * (2 if plan.method == "dpo" else 1)
    return Step(
        sequences=1 if plan.packing else rows,
        tokens=rows * plan.context if plan.packing else plan.context,
        learned=plan.learned,
        checkpointing=plan.checkpointing,
        attention=plan.attention,
        dtype=plan.dtype,
        trained=_trained_dtype(plan),
        rank=0 if plan.method == "full" else plan.lora_r,
        dropout=0.0 if plan.method == "dpo" else plan.lora_dropout,  # TRL's DPO switches it off
        dora=plan.dora,
        targets=plan.targets,
        packed={"qlora": "nf4", "int8": "int8"}.get(plan.method, ""),
        cuda=plan.device == "cuda",
    )


def _frozen_bytes(plan: Plan, weights: Weights) -> float:
    size = plan.dtype.itemsize
    plain = (weights.embeddings + weights.rest) * size
    if plan.method == "qlora":
        # Half a byte each; for every 64 a scale of one byte, for every 256 scales one of float32 (arXiv:2305.14314).
        return plain + weights.in_layers * (1 / 2 + 1 / 64 + 4 / (64 * 256))
    if plan.method == "int8":
        # One byte each, and a float32 scale for each row (arXiv:2208.07339).
        return plain + weights.in_layers + 4 * weights.layers * sum(rows for rows, _ in weights.linear)
    return plain + weights.in_layers * size


def _early_gradients(plan: Plan, weights: Weights, gradients: int, size: int) -> int:
    """Those that exist when the last layer's backward pass is at its highest: all of them from the second micro-batch
    on; else, if it is trained, the head's. Between two steps there are none: the trainer sets them to None."""
    if plan.accumulation > 1:
        return gradients
    if plan.method != "full" or weights.tied:
        return 0  # a tied head's waits for that of the words, as an activation
    return weights.head * size


def _while_kept(marks: Footprint, weights: Weights) -> dict[str, int]:
    kept = marks.outside + weights.layers * marks.layer
    layers = max(marks.forward, marks.backward, 0)
    return {"activations": kept + layers, "logits": max(marks.head - layers, 0)}


def _at_the_end(plan: Plan, marks: Footprint) -> dict[str, int]:
    ending = marks.ending_again if plan.accumulation > 1 else marks.ending
    return {"activations": max(ending, marks.outside + marks.layer + marks.backward), "logits": 0}


def _smaller_batches(plan: Plan) -> Iterator[Plan]:
    """Those that divide it, with as many gradients accumulated more."""
    for parts in range(2, plan.micro_batch + 1):
        if plan.micro_batch % parts == 0:
            yield dataclasses.replace(
                plan, micro_batch=plan.micro_batch // parts, accumulation=plan.accumulation * parts
            )


def _shorter_contexts(plan: Plan) -> Iterator[Plan]:
    for context in CONTEXTS:
        if context < plan.context:
            yield dataclasses.replace(plan, context=context)


def _thriftier(plan: Plan) -> Iterator[Plan]:
    for method in THRIFTIER[plan.method]:
        others = [dataclasses.replace(plan, method=method)]
        others += _smaller_batches(others[0])
        yield from others
        yield from _shorter_contexts(others[-1])


def store_defaults() -> None:
    """Dry-run what `recommend` and `check_guide` ask for by default, and keep it beside the code."""
    plans = [published_plan(checkpoint, method, 2048, 1) for checkpoint in PUBLISHED for method in METHODS]
    plans += [published_plan(c.checkpoint, c.method, c.context, c.micro_batch) for c in GUIDE]
    store((plan.shape, _step(plan)) for plan in plans)


if __name__ == "__main__":
    store_defaults()
