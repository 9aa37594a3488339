"""A PEFT adapter melted into its base model.

In: a base model and an adapter folder. Out: a checkpoint that needs no PEFT: weights in the base's stored dtype as
safetensors, with tokenizer, chat template and stop tokens. The sum is made in float32 on the CPU, on a fresh base.
"""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from helpers.base_model import BaseModel
from helpers.export.serving_files import write_serving_files
from helpers.files import whole_folder
from helpers.quiet import hide_gptqmodel
from helpers.records import Mismatch

WEIGHTS = "adapter_model.safetensors"


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


def save_merged(merged: PreTrainedModel, base: BaseModel, target: Path) -> Path:
    """Write the merged model to `target`, whole or not at all, in the dtype in which the base is stored.

    Casts `merged` in place. Returns `target`.
    """
    stored = AutoConfig.from_pretrained(base.path).dtype or torch.float32
    with whole_folder(target) as part:
        merged.to(stored).save_pretrained(part)
        write_serving_files(base.path, part)
    return target
