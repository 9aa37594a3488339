"""The true shape of every recommended checkpoint, and of a model at hand.

In: a hub id of `helpers.families`, or a model's folder. Out: a `Shape`, from which transformers' own class is built on
the meta device, where nothing is allocated: weights are counted there, not by hand.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Shape:
    """A model's architecture without its weights.

    Attributes:
        name: hub id or folder.
        config: the model's configuration as JSON, `model_type` included.
    """

    name: str
    config: str

    @property
    def layers(self) -> int:
        return json.loads(self.config)["num_hidden_layers"]

    @property
    def hidden(self) -> int:
        return json.loads(self.config)["hidden_size"]

    def configuration(self, layers: int | None = None) -> PreTrainedConfig:
        """Its configuration, cut to so many `layers`; a cut one keeps as many kinds of layer as it can."""
        values = json.loads(self.config)
        config = CONFIG_MAPPING[values.pop("model_type")](**values)
        if layers is not None and layers != config.num_hidden_layers:
            if kinds := getattr(config, "layer_types", None):
                config.layer_types = (list(dict.fromkeys(kinds)) + kinds)[:layers]
            config.num_hidden_layers = layers
        return config

    def kinds(self) -> int:
        """How many kinds of layer it has: a model with sliding and full attention has two."""
        return len(set(getattr(self.configuration(), "layer_types", None) or ["full_attention"]))

    def on_meta(self, layers: int | None = None, attention: str = "eager", dtype=torch.float32) -> PreTrainedModel:
        """The model with shapes and no memory, cut to so many `layers`."""
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                self.configuration(layers), attn_implementation=attention, dtype=dtype
            )


@dataclass(frozen=True)
class Weights:
    """Numbers of weights. `linear`: (rows, columns) of each linear layer of one decoder layer; `small`: its norms and
    biases; `embeddings`: vocabulary and, if it is not the same, head; `head`: rows × columns of the head."""

    layers: int
    linear: tuple[tuple[int, int], ...]
    small: int
    embeddings: int
    head: int
    tied: bool
    final_norm: int

    @property
    def in_layers(self) -> int:
        return self.layers * sum(rows * columns for rows, columns in self.linear)

    @property
    def rest(self) -> int:
        return self.layers * self.small + self.final_norm

    @property
    def total(self) -> int:
        return self.in_layers + self.rest + self.embeddings


@cache
def count(shape: Shape) -> Weights:
    """Weights of `shape`, counted in one decoder layer on the meta device: all of its layers have the same size."""
    model = shape.on_meta(layers=1)
    layer = model.model.layers[0]
    linear = tuple(tuple(m.weight.shape) for m in layer.modules() if isinstance(m, torch.nn.Linear))
    in_layer = sum(p.numel() for p in layer.parameters())
    words, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embeddings = words.numel() + (0 if head is words else head.numel())
    return Weights(
        layers=shape.layers,
        linear=linear,
        small=in_layer - sum(rows * columns for rows, columns in linear),
        embeddings=embeddings,
        head=head.numel(),
        tied=head is words,
        final_norm=sum(p.numel() for p in model.parameters()) - in_layer - embeddings,
    )


def shape_of(path: Path) -> Shape:
    """The shape of the model in the folder `path`."""
    return _shape(str(path), json.loads(AutoConfig.from_pretrained(path).to_json_string(use_diff=True)))


def published_shape(hub_id: str) -> Shape:
    """The shape of a checkpoint that `helpers.families` recommends.

    Raises:
        KeyError: it has no row in `PUBLISHED`.
    """
    return _shape(hub_id, PUBLISHED[hub_id])


def _shape(name: str, values: dict) -> Shape:
    kept = {k: v for k, v in values.items() if k not in ("architectures", "transformers_version", "dtype")}
    return Shape(name, json.dumps(kept, sort_keys=True))


def _row(model_type: str, hidden: int, layers: int, heads: int, kv: int, inner: int, vocabulary: int, **more) -> dict:
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
    } | more


_LLAMA_2_7B = _row("llama", 4096, 32, 32, 32, 11008, 32000)
_LLAMA_2_13B = _row("llama", 5120, 40, 40, 40, 13824, 32000)
_LLAMA_3_8B = _row("llama", 4096, 32, 32, 8, 14336, 128256)
_LLAMA_3_70B = _row("llama", 8192, 80, 64, 8, 28672, 128256)

# model_type, hidden, layers, heads, key-value heads, intermediate, vocabulary: as in each checkpoint's config.json.
# ChatGLM3 and Baichuan2 as `helpers.conversion` rewrites them.
PUBLISHED: dict[str, dict] = {
    "google/gemma-3-270m-it": _row("gemma3_text", 640, 18, 4, 1, 2048, 262144, head_dim=256, sliding_window=512),
    "google/gemma-3-1b-it": _row("gemma3_text", 1152, 26, 4, 1, 6912, 262144, head_dim=256, sliding_window=512),
    "google/gemma-2b-it": _row("gemma", 2048, 18, 8, 1, 16384, 256000, head_dim=256),
    "google/gemma-7b-it": _row("gemma", 3072, 28, 16, 16, 24576, 256000, head_dim=256),
    "google/gemma-2-2b-it": _row("gemma2", 2304, 26, 8, 4, 9216, 256000, head_dim=256),
    "google/gemma-2-9b-it": _row("gemma2", 3584, 42, 16, 8, 14336, 256000, head_dim=256),
    "Qwen/Qwen2.5-0.5B-Instruct": _row("qwen2", 896, 24, 14, 2, 4864, 151936, tie_word_embeddings=True),
    "Qwen/Qwen2.5-1.5B-Instruct": _row("qwen2", 1536, 28, 12, 2, 8960, 151936, tie_word_embeddings=True),
    "Qwen/Qwen2.5-7B-Instruct": _row("qwen2", 3584, 28, 28, 4, 18944, 152064),
    "Qwen/Qwen2.5-14B-Instruct": _row("qwen2", 5120, 48, 40, 8, 13824, 152064),
    "01-ai/Yi-1.5-6B-Chat": _row("llama", 4096, 32, 32, 4, 11008, 64000),
    "01-ai/Yi-1.5-9B-Chat": _row("llama", 4096, 48, 32, 4, 11008, 64000),
    "01-ai/Yi-1.5-34B-Chat": _row("llama", 7168, 60, 56, 8, 20480, 64000),
    "THUDM/chatglm3-6b": _row(
        "glm", 4096, 28, 32, 2, 13696, 65024, head_dim=128, attention_bias=True, pad_token_id=0, eos_token_id=2
    ),
    "baichuan-inc/Baichuan2-7B-Chat": _row("llama", 4096, 32, 32, 32, 11008, 125696),
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA_3_8B,
    "meta-llama/Meta-Llama-3-70B-Instruct": _LLAMA_3_70B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_3_8B,
    "meta-llama/Llama-3.1-70B-Instruct": _LLAMA_3_70B,
    "mistralai/Mistral-7B-Instruct-v0.3": _row("mistral", 4096, 32, 32, 8, 14336, 32768, sliding_window=None),
    "mistralai/Mistral-Nemo-Instruct-2407": _row(
        "mistral", 5120, 40, 32, 8, 14336, 131072, head_dim=128, sliding_window=None
    ),
    "meta-llama/Llama-2-7b-chat-hf": _LLAMA_2_7B,
    "meta-llama/Llama-2-13b-chat-hf": _LLAMA_2_13B,
    "PygmalionAI/pygmalion-2-7b": _LLAMA_2_7B,
    "PygmalionAI/pygmalion-2-13b": _LLAMA_2_13B,
    "Gryphe/MythoMax-L2-13b": _LLAMA_2_13B,
}
