"""What an export lost against the merged model, and what it gains.

In: a merged model's folder, and folders or GGUF files made from it; held-out rows and prompts. Out: a `Quality` for
each: perplexity, how often it would say the same next word, its greedy replies, the share of the persona card's rules
that they keep, and tokens a second. All are measured one after the other in one process, run as
`python -m helpers.export.quality`, with which the kernels and patches of a quantized model end.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AwqConfig,
    CompressedTensorsConfig,
    GPTQConfig,
    PreTrainedTokenizerBase,
)

from helpers.conversations import Conversation
from helpers.export import worker
from helpers.export.logits import supervised_logits
from helpers.export.parity import Reference, compare, log_likelihood
from helpers.families import load_tokenizer
from helpers.generation import reply
from helpers.persona import Level, PersonaCard
from helpers.persona_rules import Situation, persona_consistency
from helpers.replies import Reply
from helpers.supervision import Row


@dataclass(frozen=True)
class Prompt:
    """A held-out chat that waits for her reply, and the level that it is at."""

    chat: list[dict[str, str]]
    level: Level

    @classmethod
    def first_turn(cls, conversation: Conversation, card: PersonaCard) -> "Prompt":
        """The beginning of a conversation, up to the user's first words."""
        return cls(conversation.chat(card)[:2], conversation.metadata.affection_level)


@dataclass(frozen=True)
class Quality:
    """One export, measured.

    Attributes:
        bytes: of weights on disk.
        perplexity: over `tokens` supervised tokens.
        same_token: share of these at which its most likely token is the merged model's.
        max_abs, mean_abs: differences of the logits from the merged model's.
        replies: greedy, to the prompts.
        same_reply: share of them that are the merged model's, letter by letter.
        persona: share of the persona card's rules kept, mean over the replies, 0 to 1.
        tokens_per_second: of these replies, prompts read included.
    """

    bytes: int
    perplexity: float
    tokens: int
    same_token: float
    max_abs: float
    mean_abs: float
    replies: tuple[str, ...]
    same_reply: float
    persona: float
    tokens_per_second: float

    @property
    def figures(self) -> dict[str, float]:
        """All but the replies, for the run record."""
        return {name: value for name, value in asdict(self).items() if name != "replies"}


def measure(
    exports: Mapping[str, Path],
    rows: Sequence[Row],
    parity_rows: int,
    prompts: Sequence[Prompt],
    card: PersonaCard,
    max_new_tokens: int,
    log: Path,
) -> dict[str, Quality]:
    """Measure every export against the first, which is the merged model's folder. On a CPU transformers computes in
    float32, on a GPU in bfloat16; a GGUF file runs in llama.cpp on the CPU.

    Args:
        exports: model folders, or files that end in .gguf, by name.
        rows: held-out dialogues; logits are compared on the first `parity_rows` of them.

    Raises:
        ValueError: no row has a supervised token.
        worker.WorkerError: the process failed; the message holds the end of `log`.
    """
    if not any(any(row.assistant_masks[1:]) for row in rows[:parity_rows]):
        raise ValueError("There is no supervised token in these rows: give conversations with a companion's reply.")
    job = {
        "exports": {name: str(path.resolve()) for name, path in exports.items()},
        "rows": worker.pack_rows(rows),
        "parity_rows": parity_rows,
        "chats": [prompt.chat for prompt in prompts],
        "max_new_tokens": max_new_tokens,
    }
    found = worker.run("helpers.export.quality", job, log, f"measuring {', '.join(exports)}")
    merged = next(iter(found.values()))["replies"]
    return {
        name: Quality(
            **values | {"replies": tuple(values["replies"])},
            bytes=_bytes(exports[name]),
            same_reply=fmean(a == b for a, b in zip(values["replies"], merged, strict=True)),
            persona=_persona(values["replies"], prompts, card),
        )
        for name, values in found.items()
    }


def _bytes(export: Path) -> int:
    return sum(f.stat().st_size for f in ([export] if export.is_file() else export.glob("*.safetensors")))


def _persona(replies: Sequence[str], prompts: Sequence[Prompt], card: PersonaCard) -> float:
    marks = []
    for text, prompt in zip(replies, prompts, strict=True):
        system, user = (message["content"] for message in prompt.chat)
        marks.append(persona_consistency(text, Situation(prompt.level, [user], system=system), card))
    return fmean(marks)


# gptqmodel's own choice on a GPU, Marlin, is compiled when it is first asked, by an nvcc that few machines have.
_TRITON = {
    "gptq": lambda bits: GPTQConfig(bits=bits, backend="triton"),
    "awq": lambda bits: AwqConfig(bits=bits, backend="gemm_triton"),
}


class _Transformers:
    """A folder in transformers, with what is asked of `llama_cpp.LlamaCpp`."""

    def __init__(self, folder: Path):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        how = getattr(AutoConfig.from_pretrained(folder), "quantization_config", {})
        # Left compressed, 8-bit integers meet transformers' float32 product, which refuses them.
        unpacked = how.get("quant_method") == "compressed-tensors"
        options = {"quantization_config": CompressedTensorsConfig(run_compressed=False)} if unpacked else {}
        if device == "cuda" and how.get("quant_method") in _TRITON:
            options = {"quantization_config": _TRITON[how["quant_method"]](how["bits"])}
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map=device, **options)
        self._tokenizer = load_tokenizer(folder)

    def logits(self, rows: Sequence[Row]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return supervised_logits(self._model, rows)

    def replies(self, chats: Sequence[list[dict[str, str]]], max_new_tokens: int) -> list[Reply]:
        # One at a time, as llama.cpp is asked: in a padded batch rounding may decide otherwise between two words.
        return [reply(self._model, self._tokenizer, [chat], max_new_tokens)[0] for chat in chats]


class _LlamaCpp:
    """A GGUF file in llama.cpp; its prompts are encoded by the merged model's tokenizer, which reads as it does."""

    def __init__(self, file: Path, tokenizer: PreTrainedTokenizerBase, longest: int):
        from helpers.export.llama_cpp import LlamaCpp

        self._model, self._tokenizer = LlamaCpp(file, longest), tokenizer
        self.logits = self._model.logits

    def replies(self, chats: Sequence[list[dict[str, str]]], max_new_tokens: int) -> list[Reply]:
        found = []
        for chat in chats:
            prompt = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
            said = self._model.reply(list(prompt["input_ids"]), max_new_tokens)
            stopped = self._model.ends(said[-1])
            words = said[: len(said) - stopped]
            text = self._tokenizer.decode(words, skip_special_tokens=True).strip()
            found.append(Reply(text, stopped, len(words)))
        return found


def _run(job: dict) -> dict:
    rows, chats = worker.unpack_rows(job["rows"]), job["chats"]
    paths = {name: Path(path) for name, path in job["exports"].items()}
    tokenizer = load_tokenizer(next(iter(paths.values())))
    longest = max(len(row.input_ids) for row in rows) + job["max_new_tokens"]
    merged, found = None, {}
    for name, path in paths.items():
        model = _LlamaCpp(path, tokenizer, longest) if path.suffix == ".gguf" else _Transformers(path)
        heard = _Heard(model, rows, job["parity_rows"])
        merged = merged or heard
        found[name] = heard.against(merged)
        began = time.monotonic()
        replies = model.replies(chats, job["max_new_tokens"])
        seconds = time.monotonic() - began
        found[name] |= {
            "replies": [r.text for r in replies],
            "tokens_per_second": sum(r.tokens for r in replies) / seconds,
        }
        del model  # before the next is loaded
    return found


class _Heard:
    """What a model says: its logits on the first rows, its most likely tokens on all of them, and how likely to it her
    own are."""

    def __init__(self, model: _Transformers | _LlamaCpp, rows: list[Row], parity_rows: int):
        self.first, likely, chances = [], [], []
        for compared, part in ((True, rows[:parity_rows]), (False, rows[parity_rows:])):
            for logits, targets in model.logits(part):
                likely.append(logits.argmax(-1).cpu())
                chances.append(log_likelihood(logits, targets).cpu())
                if compared:
                    self.first.append((logits.cpu(), targets.cpu()))
        self.likely, self.chances = torch.cat(likely), torch.cat(chances)

    def against(self, merged: "_Heard") -> dict[str, float]:
        parity = compare(Reference(torch.cat([logits for logits, _ in merged.first])), self.first)
        return {
            "perplexity": math.exp(-self.chances.mean().item()),
            "tokens": len(self.chances),
            "same_token": (self.likely == merged.likely).float().mean().item(),
            "max_abs": parity.max_abs,
            "mean_abs": parity.mean_abs,
        }


if __name__ == "__main__":
    worker.answer(_run)
