"""A published ChatGLM3 or Baichuan2 checkpoint, rewritten in transformers' own layout.

In: the folder as downloaded. Out: a folder that GlmForCausalLM or LlamaForCausalLM loads, with a fast tokenizer.
Weights pass through tensor by tensor, in the dtype they are stored in, and no code of the checkpoint is run.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from helpers.conversion.layouts import Layout, NotConvertible, read_layout
from helpers.conversion.shards import SHARD_BYTES, read_tensors, write_tensors
from helpers.conversion.vocabulary import build_tokenizer
from helpers.files import whole_folder

_SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens")


def convert(source: Path, target: Path, shard_bytes: int = SHARD_BYTES) -> Layout:
    """Rewrite the checkpoint in `source` as a native one in `target`, whole or not at all.

    Args:
        source: config.json, tokenizer.model, and safetensors or pytorch_model.bin files.
        target: takes config.json, generation_config.json, the tokenizer and safetensors of about `shard_bytes` each.

    Raises:
        NotConvertible: the model is of a kind that no native class computes, or a file is not as published.
        FileNotFoundError: a file is missing.
    """
    source, target = Path(source), Path(target)
    if source.resolve().is_relative_to(target.resolve()):
        raise NotConvertible(f"{target} holds the checkpoint itself: give another folder to write to.")
    layout = read_layout(source)
    if layout is None:
        raise NotConvertible(f"{source} is neither a ChatGLM nor a Baichuan, by the model_type in its config.json.")
    with whole_folder(target) as part:
        _write_companions(source, part, layout)
        write_tensors(part, _native_tensors(source, layout), shard_bytes)
        layout.config.save_pretrained(part)
    return layout


def _write_companions(source: Path, target: Path, layout: Layout) -> None:
    """Write what stands beside the weights: the tokenizer, and a generation config that stops where a reply ends."""
    config = layout.config
    tokenizer = build_tokenizer(
        source / "tokenizer.model", layout.added_tokens, layout.prefix, config.max_position_embeddings
    )
    if len(tokenizer) > config.vocab_size:
        raise NotConvertible(
            f"{source / 'tokenizer.model'} gives {len(tokenizer)} tokens and the model knows {config.vocab_size}: they "
            "are not from the same checkpoint."
        )
    tokenizer.chat_template = _json(source / "tokenizer_config.json").get("chat_template")
    tokenizer.save_pretrained(target)
    published = _json(source / "generation_config.json")
    GenerationConfig(
        **{name: published[name] for name in _SAMPLING if name in published and published.get("do_sample")},
        bos_token_id=config.bos_token_id,
        pad_token_id=config.pad_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids(list(layout.stop_tokens)),
    ).save_pretrained(target)


def _json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _native_tensors(source: Path, layout: Layout) -> Iterator[tuple[str, torch.Tensor]]:
    """The native tensors, each of which must be one that the native class has, in its shape, and none left out."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(layout.config)
    # vLLM goes by this name.
    layout.config.architectures = [type(model).__name__]
    missing = {name: parameter.shape for name, parameter in model.named_parameters()}
    for published, tensor in read_tensors(source):
        if not tensor.is_floating_point():
            raise NotConvertible(f"{source} holds quantized weights ({published}): take the 16-bit checkpoint.")
        for name, native in layout.tensors(published, tensor).items():
            if (shape := missing.pop(name, None)) != native.shape:
                raise NotConvertible(
                    f"{source} holds {published} in the shape {tuple(native.shape)}, and {layout.config.model_type} "
                    + (f"wants {tuple(shape)}." if shape else "has no place for it.")
                )
            layout.config.dtype = native.dtype
            yield name, native
    if missing:
        raise NotConvertible(f"{source} lacks {len(missing)} tensors, {min(missing)} among them: download it again.")
