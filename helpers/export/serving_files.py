"""What a checkpoint needs besides its weights to speak as it was trained: tokenizer, chat template, stop tokens.

In: the folder that the weights came from. Out: the same files in the folder of the new weights, or, for a base that is
served as it was published, in a folder of their own; and whether an export has all that it must have, and nothing that
it must not.
"""

import json
from pathlib import Path

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from helpers.families import REMEMBERED, load_tokenizer, stop_token_ids
from helpers.files import whole_folder

# What Python's pickle reads: such a file can run any code.
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib")
CARD = "README.md"
_PROBE = "ただいま〜😮‍💨\n  Hello, 3.14 ﾊﾝｶｸ　𠮷野家"


class Unfit(ValueError):
    """An export lacks something, or holds what it must not."""


def write_serving_files(source: Path, target: Path) -> None:
    """Write the tokenizer with the training chat template, and a generation_config that stops at her end of turn.

    Sampling defaults are the source's; `eos_token_id` is `families.stop_token_ids`, because a server that knows only
    the base's end of sequence runs on after the companion has finished.
    """
    tokenizer = load_tokenizer(source)
    tokenizer.save_pretrained(target)
    generation = sampling_defaults(source)
    generation.eos_token_id = stop_token_ids(tokenizer)
    generation.pad_token_id = tokenizer.pad_token_id
    generation.save_pretrained(target)


def serving_folder(model: Path, target: Path) -> Path:
    """The folder from which a server of `model` takes all but the weights: `model` itself, if the workbench wrote these
    files there (an export, the embedded base), else `target`, written anew.

    Raises:
        ValueError: its family cannot be told.
    """
    if _speaks_as_trained(model):
        return model
    with whole_folder(target) as part:
        write_serving_files(model, part)
        AutoConfig.from_pretrained(model).save_pretrained(part)  # transformers picks the tokenizer's class by it
    return target


def _speaks_as_trained(folder: Path) -> bool:
    tokenizer, generation = folder / "tokenizer_config.json", folder / "generation_config.json"
    if not (tokenizer.exists() and generation.exists() and REMEMBERED in json.loads(tokenizer.read_text("utf-8"))):
        return False
    return GenerationConfig.from_pretrained(folder).eos_token_id == stop_token_ids(load_tokenizer(folder))


def sampling_defaults(folder: Path) -> GenerationConfig:
    """How a model samples by its own generation_config.json; of one that has none nothing is set."""
    there = (folder / "generation_config.json").exists()
    return GenerationConfig.from_pretrained(folder) if there else GenerationConfig()


def check_export(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check a folder that is to be served. A folder of GGUF files carries tokenizer, template and stop tokens inside
    them, checked when they were made (`export.gguf`).

    Args:
        tokenizer: the one that she was trained with.

    Raises:
        Unfit: there are no weights, weights in a format that runs code, no model card, another tokenizer or chat
            template, or other stop tokens.
    """
    if pickled := sorted(file.name for pattern in PICKLED for file in folder.rglob(pattern)):
        raise Unfit(f"{folder.name} holds {pickled[0]}, a format that can run code when it is read: delete it.")
    if not (folder / CARD).exists():
        raise Unfit(f"{folder.name} has no model card ({CARD}).")
    if any(folder.glob("*.gguf")):
        return
    if not any(folder.glob("*.safetensors")):
        raise Unfit(f"{folder.name} holds no weights in safetensors.")
    own = load_tokenizer(folder)
    if own.get_vocab() != tokenizer.get_vocab() or own(_PROBE).input_ids != tokenizer(_PROBE).input_ids:
        raise Unfit(f"{folder.name} has another tokenizer than she was trained with.")
    if own.chat_template != tokenizer.chat_template:
        raise Unfit(f"{folder.name} has another chat template than she was trained with.")
    if (stops := GenerationConfig.from_pretrained(folder).eos_token_id) != stop_token_ids(tokenizer):
        raise Unfit(f"{folder.name} stops at {stops} and not at her end of turn {stop_token_ids(tokenizer)}.")


def weight_bytes(folder: Path) -> int:
    """Size of the folder's safetensors files in bytes."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
