"""What a checkpoint needs besides its weights to speak as it was trained: tokenizer, chat template, stop tokens.

In: the folder that the weights came from. Out: the same files in the folder of the new weights.
"""

from pathlib import Path

from transformers import GenerationConfig

from helpers.families import load_tokenizer, stop_token_ids


def write_serving_files(source: Path, target: Path) -> None:
    """Write the tokenizer with the training chat template, and a generation_config that stops at her end of turn.

    Sampling defaults are the source's; `eos_token_id` is `families.stop_token_ids`, because a server that knows only
    the base's end of sequence runs on after the companion has finished.
    """
    tokenizer = load_tokenizer(source)
    tokenizer.save_pretrained(target)
    has_defaults = (source / "generation_config.json").exists()
    generation = GenerationConfig.from_pretrained(source) if has_defaults else GenerationConfig()
    generation.eos_token_id = stop_token_ids(tokenizer)
    generation.pad_token_id = tokenizer.pad_token_id
    generation.save_pretrained(target)


def weight_bytes(folder: Path) -> int:
    """Size of the folder's safetensors files in bytes."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
