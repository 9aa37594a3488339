"""A PEFT adapter melted into its base model, and whether it is still the same companion.

In: a base model and an adapter folder. Out: a checkpoint that needs no PEFT: weights in the base's stored dtype as
safetensors, with tokenizer, chat template and stop tokens. The sum is made in float32 on the CPU, on a fresh base. What
was written is read back and compared with the adapter, and is there only if rounding explains all the difference.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from helpers.base_model import BaseModel
from helpers.export import parity
from helpers.export.logits import supervised_logits
from helpers.export.parity import Parity
from helpers.export.perplexity import Perplexity, perplexity
from helpers.export.rounding import Change, changed, erased, is_exact, shaken, sum_error, unit_roundoff
from helpers.export.serving_files import write_serving_files
from helpers.files import whole_folder
from helpers.quiet import hide_gptqmodel
from helpers.records import Mismatch
from helpers.supervision import Row

WEIGHTS = "adapter_model.safetensors"


class MergeOff(ValueError):
    """The merged model is further from the adapter than rounding explains. Nothing was left on disk."""


@dataclass(frozen=True)
class Allowed:
    """How far from the adapter rounding may take the merged model: largest and mean logit difference, and mean
    difference of the log-likelihood of her words."""

    max_abs: float
    mean_abs: float
    nll_abs: float

    @classmethod
    def together(cls, told: parity.Reference, *causes: Parity) -> "Allowed":
        """What the causes make if their effects add up, and the last rounding of both models' logits, the size of
        `told`'s, to float32."""
        last, size = 2 * unit_roundoff(torch.float32), told.logits.abs()
        largest, mean, likelihood = (
            sum(getattr(cause, name) for cause in causes) for name in ("max_abs", "mean_abs", "nll_abs")
        )
        return cls(largest + last * size.max().item(), mean + last * size.mean().item(), likelihood)


@dataclass(frozen=True)
class Verdict:
    """How far the merged model is from the adapter, and how far it may be.

    Attributes:
        base: the base alone: what the adapter brings.
        in_memory: the merged model in float32; `sums`: how far it may be.
        saved: as read back from disk; `storing`: how far it may be.
        perplexity: of the base, of the adapter and of what was read back, over all rows.
    """

    base: Parity
    in_memory: Parity
    sums: Allowed
    saved: Parity
    storing: Allowed
    perplexity: dict[str, Perplexity]

    @property
    def faults(self) -> list[str]:
        """What rounding does not explain, with the figures; nothing of a sound merge."""
        found = []
        for what, is_, may in (("in memory", self.in_memory, self.sums), ("as saved", self.saved, self.storing)):
            # Not "greater than": a merge with a number that is none is no merge either.
            if not (is_.max_abs <= may.max_abs and is_.mean_abs <= may.mean_abs):
                found.append(
                    f"{what} its logits differ from the adapter's by {is_.max_abs:.2g} at most and {is_.mean_abs:.2g} "
                    f"on average, where rounding explains {may.max_abs:.2g} and {may.mean_abs:.2g}"
                )
        if not self.saved.mean_abs < self.base.mean_abs:
            found.append(
                f"storing it costs a mean logit difference of {self.saved.mean_abs:.2g}, and all that the adapter "
                f"brought is {self.base.mean_abs:.2g}"
            )
        adapter, merged = self.perplexity["adapter"].value, self.perplexity["merged"].value
        if not abs(log(merged / adapter)) <= self.storing.nll_abs:
            found.append(f"its perplexity is {merged:.3f}, and the adapter's {adapter:.3f}")
        return found

    def check(self) -> None:
        """Raises MergeOff if there is a fault."""
        if self.faults:
            raise MergeOff(
                f"The merged model is not what was trained: {'; '.join(self.faults)}. It was not saved: merge again "
                "from the adapter and the base that it was trained on."
            )

    @property
    def figures(self) -> dict[str, object]:
        """All of it, for the run record."""
        return {
            **{name: value.figures for name, value in vars(self).items() if isinstance(value, Parity)},
            **{f"{name}_allowed": asdict(value) for name, value in vars(self).items() if isinstance(value, Allowed)},
            "perplexity": {name: p.value for name, p in self.perplexity.items()},
        }


def load_adapted(base: BaseModel, adapter: Path, trained_on: str) -> PeftModel:
    """The base, freshly loaded in float32 on the CPU, wearing the adapter.

    Args:
        trained_on: the base's SHA-256 that the adapter's stage recorded.

    Raises:
        Mismatch: the adapter was trained on another base, or does not fit this one.
        FileNotFoundError: `adapter` holds no PEFT adapter in safetensors.
        ValueError: the base is quantized, or the adapter's file is damaged.
    """
    if trained_on != base.sha256:
        raise Mismatch(
            f"The adapter {adapter.name} was trained on another base (SHA-256 {trained_on[:12]}…) than {base.name} "
            f"({base.sha256[:12]}…): give the base model that it was trained on."
        )
    if getattr(AutoConfig.from_pretrained(base.path), "quantization_config", None) is not None:
        raise ValueError(
            f"The base {base.name} is quantized, and merging into rounded weights rounds the adapter away: "
            "give the 16- or 32-bit base."
        )
    names = _tensor_names(adapter)
    hide_gptqmodel()
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    try:
        adapted = PeftModel.from_pretrained(model, adapter, torch_device="cpu")
    except RuntimeError as error:
        raise Mismatch(
            f"The adapter {adapter.name} does not fit {base.name}: {' '.join(str(error).split())[:300]}"
        ) from error
    if strange := names ^ set(get_peft_model_state_dict(adapted)):
        raise Mismatch(
            f"The adapter {adapter.name} does not fit {base.name}: {len(strange)} of its tensors are missing or have "
            f"no place in it, {min(strange)} among them; train it again or give the base that it was trained on."
        )
    return adapted.eval()


def _tensor_names(adapter: Path) -> set[str]:
    for name in ("adapter_config.json", WEIGHTS):
        if not (adapter / name).exists():
            raise FileNotFoundError(
                f"The folder {adapter.name} holds no adapter: {name} is missing (only safetensors are read)."
            )
    try:
        with safe_open(adapter / WEIGHTS, "pt") as file:
            return set(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{adapter.name}/{WEIGHTS} is damaged ({error}): run the stage that made it again.") from error


def merge(adapted: PeftModel) -> PreTrainedModel:
    """Add the adapter to the base's weights, in place, and return the plain model (LoRA: W + α/r · B·A).

    Raises:
        ValueError: the adapter holds a value that is not finite.
    """
    return adapted.merge_and_unload(safe_merge=True)


def save_merged(
    merged: PreTrainedModel,
    adapted: PeftModel,
    base: BaseModel,
    target: Path,
    rows: Sequence[Row],
    parity_rows: int,
) -> tuple[Verdict, PreTrainedModel]:
    """Write the merged model to `target` in the dtype in which the base is stored, and compare it with the adapter.

    `merged` is cast in place and of no further use.

    Args:
        rows: held-out dialogues, for the perplexity.
        parity_rows: on so many of them logits are compared, in memory: see `parity.Reference`.

    Returns:
        The verdict, and the model as read back from disk, in float32.

    Raises:
        MergeOff: rounding does not explain the difference. Nothing is at `target` then, nor is an older export.
    """
    shutil.rmtree(target, ignore_errors=True)
    stored = AutoConfig.from_pretrained(base.path).dtype or torch.float32
    held_out = rows[:parity_rows]
    told, own = parity.reference(adapted, held_out), parity.reference(merged, held_out)

    def distance(model: PreTrainedModel | PeftModel, of: parity.Reference = told) -> Parity:
        return parity.compare(of, supervised_logits(model, held_out))

    with adapted.disable_adapter():
        without, bare = distance(adapted), perplexity(adapted, rows)
    in_memory = distance(merged)
    causes = []
    for layers in _roundings(merged, adapted, stored):
        with changed(merged, layers):
            causes.append(distance(merged, own))  # not of the adapter: a fault of the merge would excuse itself
    sums, storing = Allowed.together(told, causes[0]), Allowed.together(told, *causes[1:])
    with whole_folder(target) as part:
        merged.to(stored).save_pretrained(part)
        write_serving_files(base.path, part)
        read_back = AutoModelForCausalLM.from_pretrained(part, dtype=torch.float32)
        saved = distance(read_back)
        measured = {"base": bare, "adapter": perplexity(adapted, rows), "merged": perplexity(read_back, rows)}
        verdict = Verdict(without, in_memory, sums, saved, storing, measured)
        verdict.check()
    return verdict, read_back


def _roundings(merged: PreTrainedModel, adapted: PeftModel, stored: torch.dtype) -> list[dict[str, Change]]:
    """What rounding may make of the layers' weights: in float32 sums; in sums and in storing, by chance; in storing, of
    what the adapter added."""
    modules = adapted.get_base_model().named_modules()
    before = {name: m.get_base_layer().weight for name, m in modules if isinstance(m, BaseTunerLayer)}
    weights = {n: m.weight for n, m in merged.named_modules() if isinstance(getattr(m, "weight", None), torch.Tensor)}
    sums = {name: sum_error(weights[name].shape[-1]) for name in before}
    rounded = {name for name, weight in weights.items() if not is_exact(weight.detach(), stored)}
    both = {name: sums.get(name, 0.0) + (name in rounded) * unit_roundoff(stored) for name in {*sums, *rounded}}
    return [
        {name: shaken(by, i) for i, (name, by) in enumerate(sums.items())},
        {name: shaken(by, i) for i, (name, by) in enumerate(sorted(both.items()))},
        {name: erased(weight.detach(), unit_roundoff(stored)) for name, weight in before.items() if name in rounded},
    ]
