"""4-bit base weights for QLoRA (Dettmers et al., 2023, arXiv:2305.14314), and proof that they are 4-bit.

In: nothing but settings. Out: a bitsandbytes configuration, and where a model's bytes are.
"""

from collections import defaultdict

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


def four_bit_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers whose weights bitsandbytes really holds as packed 4-bit values."""
    import bitsandbytes

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, bitsandbytes.nn.Linear4bit) and module.weight.quant_state is not None
    ]


def bytes_by_part(model: torch.nn.Module) -> dict[str, int]:
    """Bytes of the model's weights by part: embeddings, linear layers of the base, adapter, the rest.

    Quantization constants (the double-quantized scales) count with the linear layers. Tied weights count once.
    """
    sizes: dict[str, int] = defaultdict(int)
    seen: set[int] = set()
    for name, parameter in model.named_parameters(remove_duplicate=True):
        if parameter.data_ptr() in seen:
            continue
        seen.add(parameter.data_ptr())
        part = "adapter" if "lora_" in name else "embeddings" if "embed" in name or "lm_head" in name else None
        part = part or ("linear layers" if parameter.ndim == 2 else "norms")
        sizes[part] += parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            constants = [state.absmax] + ([state.state2.absmax, state.state2.code] if state.nested else [])
            sizes[part] += sum(c.numel() * c.element_size() for c in constants)
    return dict(sizes)


def trained_bytes(model: torch.nn.Module) -> int:
    """Bytes of gradients and Adam's two moments for the weights that are trained."""
    return sum(3 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
