"""What a Modelfile's FROM and ADAPTER name, looked at before Ollama does.

In: a folder with safetensors or a GGUF file, and perhaps an adapter. Out: a `Source`, or one sentence that says why
Ollama would not take it, or would take it for something else. Sources, all of ollama/ollama v0.33.0-rc2:
parser/parser.go (files of a folder), convert/convert.go (architectures), convert/tokenizer.go (vocabularies).
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from helpers.export.embedded import BOS_BY_DEFAULT, check_header, read_header
from helpers.export.ollama_template import runners_bos
from helpers.files import whole_folder

# transformers' classes, of those that the families have, whose safetensors Ollama reads, with its name for each.
SAFETENSORS = {
    "LlamaForCausalLM": "llama",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "Qwen2ForCausalLM": "qwen2",
}
# Architectures for which it reads an adapter in safetensors.
ADAPTERS = ("llama", "gemma2")
# How it tells a byte-level vocabulary: by the SHA-256 of the patterns that cut a text.
_PRETOKENIZERS = {
    "d98f9631be1e9607a9848c26c1f9eac1aa9fc21ac6ba82a2fc0741af9780a48f": "llama-bpe",
    "1ff7f41064896984db5d1bb6ff64fa4bc29007d08c1b439e505b7392777a319e": "qwen2",
}
_MAKE_A_GGUF = "Give a GGUF file instead."
# What it takes of a folder, and of the folders in it.
_TAKEN = ("model*.safetensors", "*.json", "tokenizer.model", "chat_template.jinja")


@dataclass(frozen=True)
class Source:
    """A model at hand that Ollama takes, and an adapter over it. `context_length` is the model's, in tokens."""

    model: Path
    context_length: int
    adapter: Path | None = None


def find_source(model: Path, tokenizer: PreTrainedTokenizerBase, adapter: Path | None = None) -> Source:
    """What FROM, and ADAPTER, may name.

    Args:
        model: a merged model's folder, a GGUF file, or, with `adapter`, a base model's.
        tokenizer: the one she was trained with.
        adapter: a folder from `adapter_for_ollama`, or a GGUF adapter.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: Ollama would not take it, or not as what it is.
    """
    paths = [model, *([adapter] if adapter else [])]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"There is no {path}: Ollama would take the name for one of its own models.")
    architecture, context_length = _look_at(model, tokenizer)
    if adapter:
        _check_adapter(adapter, architecture)
    _check_links(*paths)
    return Source(model, context_length, adapter)


def adapter_for_ollama(adapter: Path, target: Path) -> Path:
    """Copy a PEFT adapter under the names that Ollama looks for: since 0.13 it has not found
    `adapter_model.safetensors` in a folder (issue 13314). Returns `target`.

    Raises:
        ValueError: the adapter is more than a plain LoRA, which is all that Ollama adds.
    """
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    for name in ("use_dora", "use_rslora", "alpha_pattern", "modules_to_save"):
        if config.get(name):
            raise ValueError(
                f"The adapter {adapter.name} has {name}, and Ollama adds plain LoRA only: merge it into its base."
            )
    with whole_folder(target) as part:
        shutil.copyfile(adapter / "adapter_model.safetensors", part / "model.safetensors")
        shutil.copyfile(adapter / "adapter_config.json", part / "adapter_config.json")
    return target


def find_adapter_source(base: Path, tokenizer: PreTrainedTokenizerBase, adapter: Path, target: Path) -> Source:
    """What FROM and ADAPTER may name for a base's folder or GGUF file and a PEFT adapter, of which a copy is made at
    `target` if Ollama takes it.

    Raises:
        FileNotFoundError, ValueError: see `find_source` and `adapter_for_ollama`.
    """
    architecture, context_length = _look_at(base, tokenizer)
    _check_takes_adapters(architecture)
    _check_links(base)
    return Source(base, context_length, adapter_for_ollama(adapter, target))


def _look_at(model: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[str, int]:
    """(architecture, context length) of a folder or a GGUF file."""
    if model.is_dir():
        return _look_into(model, tokenizer)
    header = check_header(model, tokenizer)
    return header.architecture, header.context_length


def _look_into(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[str, int]:
    """(architecture, context length) of a folder with safetensors."""
    if not any(folder.glob("model*.safetensors")):
        raise FileNotFoundError(
            f"The folder {folder.name} holds no model*.safetensors, which is what Ollama looks for."
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config["architectures"][0]
    if name not in SAFETENSORS:
        raise ValueError(
            f"Ollama reads no safetensors of {name} ({folder.name}), only of {', '.join(SAFETENSORS)}. {_MAKE_A_GGUF}"
        )
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method")
        raise ValueError(f"Ollama reads no {method} weights ({folder.name}): give the merged folder, or a GGUF file.")
    adds_bos = _vocabulary_adds_bos(folder)
    if adds_bos != bool(runners_bos(tokenizer)):
        raise ValueError(
            f"From the folder {folder.name} Ollama would put {'a' if adds_bos else 'no'} BOS token in front of a text, "
            f"and she was trained with{'out one' if adds_bos else ' one'}. {_MAKE_A_GGUF}"
        )
    return SAFETENSORS[name], config["max_position_embeddings"]


def _vocabulary_adds_bos(folder: Path) -> bool:
    """Whether Ollama would add the BOS token, from a vocabulary that it can tell."""
    kind = "sentencepiece"
    if not (folder / "tokenizer.model").exists():
        backend = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        steps = (backend["pre_tokenizer"] or {}).get("pretokenizers", [])
        patterns = "".join(step["pattern"].get("Regex", "") for step in steps if step["type"] == "Split")
        kind = _PRETOKENIZERS.get(hashlib.sha256(patterns.encode()).hexdigest())
        if kind is None:
            raise ValueError(
                f"Ollama cannot tell how the tokenizer in {folder.name} cuts a text: there is no tokenizer.model, and "
                f"tokenizer.json has a vocabulary that it would misread. {_MAKE_A_GGUF}"
            )
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return settings.get("add_bos_token", kind == "sentencepiece" or kind in BOS_BY_DEFAULT)


def _check_adapter(adapter: Path, architecture: str) -> None:
    if adapter.is_file():
        if (kind := read_header(adapter).kind) != "adapter":
            raise ValueError(f"{adapter.name} is no GGUF adapter, but a {kind}.")
        return
    _check_takes_adapters(architecture)
    for name in ("model.safetensors", "adapter_config.json"):
        if not (adapter / name).exists():
            raise FileNotFoundError(
                f"The folder {adapter.name} holds no {name}, under which Ollama looks for an adapter: make it with "
                "adapter_for_ollama()."
            )


def _check_links(*paths: Path) -> None:
    """Of folders: Ollama follows each link, and calls a path insecure that leaves the folder, as in the hub's cache."""
    for folder in paths:
        for file in (f for name in _TAKEN for place in ("", "*/") for f in folder.glob(place + name)):
            if not file.resolve().is_relative_to(folder.resolve()):
                raise ValueError(
                    f"In the folder {folder.name} {file.name} is a link out of it, as in the hub's cache, and Ollama "
                    "refuses such a path as insecure: download it with `hf download … --local-dir …` and name that "
                    "folder, or name a GGUF file."
                )


def _check_takes_adapters(architecture: str) -> None:
    if architecture not in ADAPTERS:
        raise ValueError(
            f"Ollama takes an adapter in safetensors over {' and '.join(ADAPTERS)} only, and this base is "
            f"{architecture}: merge the adapter, or give one in GGUF."
        )
