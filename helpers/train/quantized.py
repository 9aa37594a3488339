"""A frozen base in few bits: NF4 for QLoRA (Dettmers et al., 2023, arXiv:2305.14314) or LLM.int8 (the same, 2022,
arXiv:2208.07339), and proof that it is.

In: nothing but settings. Out: a bitsandbytes configuration, and where a model's bytes are.
"""

from collections import defaultdict
from collections.abc import Callable

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from helpers.settings import Hardware


def nf4(hardware: Hardware) -> BitsAndBytesConfig:
    """NF4 with double quantization; products are computed in the hardware's dtype."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=hardware.dtype,
    )


def int8(hardware: Hardware) -> BitsAndBytesConfig:
    """LLM.int8: 8 bits a weight and a scale each row; columns with outlying activations are computed in 16 bits."""
    return BitsAndBytesConfig(load_in_8bit=True)


QUANTIZATIONS: dict[str, Callable[[Hardware], BitsAndBytesConfig]] = {"nf4": nf4, "int8": int8}


def keep_differentiable(model: PreTrainedModel) -> None:
    """Keep 4-bit layers on a CPU in the layout through which gradients pass.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks a layer for inference the first time that the model is
    evaluated, and never back: from then on its product has no gradient, and adapters below it learn from the residual
    stream alone, with nothing but a warning.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def packed_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers whose weights bitsandbytes really holds packed, in 4 or 8 bits."""
    import bitsandbytes

    return [
        name
        for name, module in model.named_modules()
        if (isinstance(module, bitsandbytes.nn.Linear4bit) and module.weight.quant_state is not None)
        or (isinstance(module, bitsandbytes.nn.Linear8bitLt) and module.weight.dtype == torch.int8)
    ]


def bits_per_weight(layer: torch.nn.Linear) -> float:
    """Stored bits for each weight of a linear layer, its scales not counted."""
    return 8 * layer.weight.nbytes / (layer.in_features * layer.out_features)


def bytes_by_part(model: torch.nn.Module) -> dict[str, int]:
    """Bytes of the model's weights by part: embeddings, linear layers of the base, adapter, the rest. On the meta
    device (`Shape.on_meta`) those that they would have.

    Quantization constants (the double-quantized scales) count with the linear layers. Tied weights count once.
    """
    sizes: dict[str, int] = defaultdict(int)
    seen: set[int] = set()
    for name, parameter in model.named_parameters(remove_duplicate=True):
        place = parameter.data_ptr() or id(parameter)  # nothing on the meta device has a place
        if place in seen:
            continue
        seen.add(place)
        part = "adapter" if "lora_" in name else "embeddings" if "embed" in name or "lm_head" in name else None
        part = part or ("linear layers" if parameter.ndim == 2 else "norms")
        sizes[part] += parameter.nbytes
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            constants = [state.absmax] + ([state.state2.absmax, state.state2.code] if state.nested else [])
            sizes[part] += sum(c.nbytes for c in constants)
        if getattr(parameter, "SCB", None) is not None:
            sizes[part] += parameter.SCB.nbytes
    return dict(sizes)


def trained_bytes(model: torch.nn.Module) -> int:
    """Bytes of gradients and Adam's two moments for the weights that are trained."""
    return sum(3 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
