"""GGUF files, which llama.cpp and Ollama run: f16 by llama.cpp's converter, fewer bits by llama.cpp itself.

In: a merged model folder. Out: `<type>.gguf` for each type asked for, with the vocabulary, chat template and end of
turn that the companion was trained with. Runs as `python -m helpers.export.gguf` in a process of its own. The converter
is the one that auto-round brings, the quantizer llama.cpp's `llama_model_quantize` in the package cyllama.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from helpers.export import made, worker
from helpers.export.ollama_template import runners_bos
from helpers.export.sentencepiece_file import sentencepiece_model
from helpers.families import detect_family, load_tokenizer, stop_token_ids
from helpers.files import remove, sha256_folder, sha256_json, whole_folder

# Each type's number in llama.h (enum llama_ftype), and its bits.
TYPES = {"f16": (1, 16), "q8_0": (7, 8), "q4_K_M": (15, 4)}
# Versions of the converter and the quantizer are pinned; this counts changes of what is made here.
VERSION = 3
PROBES = (
    (("user", "ただいま〜😮‍💨\n今日の晩ごはん、  何にしよ"), ("assistant", "えっとね…オムライス、は？🍳")),
    (("system", "さくらです。\n二十二歳。"), ("user", "Hello, world! 3.14 ﾊﾝｶｸ　𠮷野家"), ("assistant", "うん")),
)


@dataclass(frozen=True)
class Gguf:
    """`files` by type; `seconds` that making them took, all together."""

    files: dict[str, Path]
    seconds: float

    @property
    def bytes(self) -> dict[str, int]:
        return {name: file.stat().st_size for name, file in self.files.items()}


def check_types(names: Sequence[str]) -> None:
    """Raises ValueError for the first name that is no type."""
    for name in names:
        if name not in TYPES:
            raise ValueError(f"There is no GGUF type {name!r} here: use {', '.join(TYPES)}.")


def convert(model: Path, target: Path, types: Sequence[str], log: Path) -> Gguf:
    """Write `target`/<type>.gguf for each type. What is there already, whole and from the same model, stays.

    Args:
        model: folder of the merged model, in 16 or 32 bits.
        log: file for the output of converter and quantizer.

    Raises:
        ValueError: no such type.
        worker.Refused: the converter knows no such model, or what came out reads or ends a talk otherwise than the
            companion was trained. No file is left then.
        worker.WorkerError: converter or quantizer failed; the message holds the end of `log`.
    """
    check_types(types)
    weights = sha256_folder(model, ("*.safetensors", "config.json", "tokenizer.json", "*.jinja"))
    made_from = sha256_json([weights, sorted(types), VERSION])
    if (found := made.noted(target, made_from)) is None:
        began = time.monotonic()
        job = {"model": str(model.resolve()), "target": str(target.resolve()), "types": list(types)}
        try:
            worker.run("helpers.export.gguf", job | {"made_from": made_from}, log, f"GGUF {', '.join(types)}")
        except worker.Refused:
            remove(target)
            raise
        return Gguf({name: target / f"{name}.gguf" for name in types}, round(time.monotonic() - began, 1))
    return Gguf({name: target / f"{name}.gguf" for name in types}, found["seconds"])


def _run(job: dict) -> dict:
    began, model, target = time.monotonic(), Path(job["model"]), Path(job["target"])
    tokenizer = load_tokenizer(model)
    with whole_folder(target) as part, tempfile.TemporaryDirectory(dir=target.parent) as raw:
        whole = Path(raw) / "f16.gguf"
        _to_f16(model, tokenizer, whole)
        for name in job["types"]:
            file = part / f"{name}.gguf"
            if name == "f16":
                os.link(whole, file)
            else:
                _quantize(whole, file, TYPES[name][0])
            _check(file, tokenizer)
        made.note(part, job["made_from"], seconds=round(time.monotonic() - began, 1))
    return {}


class _Architectures:
    """`gguf.MODEL_ARCH`, in which what is not known is None: auto-round 0.16.1 brings a converter that is newer than
    gguf 0.19.0 and cannot be imported without the names of architectures that are not ours."""

    def __init__(self, known: type):
        self._known = known

    def __getattr__(self, name: str):
        return getattr(self._known, name, None)


def _to_f16(model: Path, tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    import gguf
    import torch
    from auto_round.export.export_to_gguf.llama_cpp_conversion import get_conversion

    gguf.MODEL_ARCH = _Architectures(gguf.MODEL_ARCH)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        source = Path(folder)
        for item in model.iterdir():
            (source / item.name).symlink_to(item)
        if vocabulary := sentencepiece_model(tokenizer):
            (source / "tokenizer.model").unlink(missing_ok=True)
            (source / "tokenizer.model").write_bytes(vocabulary)
        try:
            conversion = get_conversion(source, auto_update=False)
            hparams = conversion.ModelBase.load_hparams(source, False)
            known = conversion.get_model_class(conversion.get_model_architecture(hparams, conversion.ModelType.TEXT))
            end_of_turn = tokenizer.convert_tokens_to_ids(detect_family(tokenizer).end_of_turn)

            class WithEndOfTurn(known):
                model_arch = known.model_arch

                def set_vocab(self) -> None:
                    super().set_vocab()
                    self.gguf_writer.add_eot_token_id(end_of_turn)
                    # What the converter takes for it depends on which of the tokenizer's files it has found.
                    self.gguf_writer.add_add_bos_token(bool(runners_bos(tokenizer)))
                    if vocabulary:
                        self.gguf_writer.add_add_space_prefix(_spaces_behind_tokens(tokenizer))

            with torch.inference_mode():
                WithEndOfTurn(source, gguf.LlamaFileType.MOSTLY_F16, file, model_name=model.name).write()
        except NotImplementedError as error:
            raise worker.Refused(
                f"llama.cpp's converter cannot take {model.name}: {' '.join(str(error).split())}. Serve the "
                "safetensors."
            ) from error


def _spaces_behind_tokens(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether words right behind a control token are read with a space in front, as llama.cpp does unless the file says
    not to. Mistral v0.3's tokenizer does so at the beginning of a text alone."""
    return tokenizer.tokenize(f"{tokenizer.eos_token}x")[1].startswith("▁")


def _quantize(whole: Path, file: Path, number: int) -> None:
    import torch
    from cyllama.llama import llama_cpp

    params = llama_cpp.LlamaModelQuantizeParams()
    params.ftype, params.nthread = number, torch.get_num_threads()
    llama_cpp.model_quantize(str(whole), str(file), params)


def _check(file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises worker.Refused if llama.cpp reads or ends a talk otherwise than in training, or finds another template."""
    from helpers.export.llama_cpp import LlamaCpp

    loaded = LlamaCpp(file)
    if loaded.chat_template != tokenizer.chat_template:
        raise worker.Refused(f"The chat template in {file.name} is not the one that she was trained with.")
    for probe in PROBES:
        chat = [{"role": role, "content": words} for role, words in probe]
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        if loaded.ids(text) != list(tokenizer(text, add_special_tokens=False)["input_ids"]):
            raise worker.Refused(
                f"llama.cpp reads the vocabulary in {file.name} otherwise than the tokenizer that she was trained with "
                f"({probe[-2][1]!r}): serve the safetensors."
            )
    for token in stop_token_ids(tokenizer):
        if not loaded.ends(token):
            raise worker.Refused(
                f"llama.cpp would not end a reply at {tokenizer.convert_ids_to_tokens(token)!r} of {file.name}."
            )


if __name__ == "__main__":
    worker.answer(_run)
