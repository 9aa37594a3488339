"""What a GGUF file says of itself, as far as the text that its model reads and the end of her turn depend on it.

In: a GGUF file and the tokenizer she was trained with. Out: its `Header`, or one sentence if it would have her read
another text, or not stop. Ollama prefers the chat template in the file to TEMPLATE if it speaks of tools or thinking
and TEMPLATE does not, and llama.cpp knows no other. Sources: src/llama-vocab.cpp of ggml-org/llama.cpp, and
server/images.go of ollama/ollama v0.33.0-rc2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf import TokenType
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from helpers.export.gguf_metadata import read_metadata
from helpers.export.ollama_template import runners_bos
from helpers.families import detect_family

# Tokens that llama.cpp lets end a reply by their text alone; of others the file must give the id.
_ENDS_BY_TEXT = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "</s>")
# Pre-tokenizers for which llama.cpp adds the BOS token if the file does not say whether to.
BOS_BY_DEFAULT = ("llama3", "llama-v3", "llama-bpe", "tekken")
_READ_AS_ONE = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)

_SYSTEM = {"role": "system", "content": "一\n二"}
_TALK = (
    {"role": "user", "content": " 三 "},
    {"role": "assistant", "content": "四"},
    {"role": "user", "content": "{{ 五 }}"},
)
_CHATS = tuple([*system, *_TALK[:n]] for system in ((), (_SYSTEM,)) for n in (1, 3))


@dataclass(frozen=True)
class Header:
    """Attributes:
    kind: "model" or "adapter".
    architecture: llama.cpp's name for it, such as "llama".
    context_length: in tokens; 0 if the file does not say.
    chat_template: Jinja, or None.
    adds_bos: whether a text gets a BOS token in front.
    ends: ids that end a reply, besides those that llama.cpp knows by their text.
    token_types: one of llama.cpp's types for each id.
    """

    kind: str
    architecture: str
    context_length: int
    chat_template: str | None
    adds_bos: bool
    ends: frozenset[int]
    token_types: Sequence[int]


def read_header(file: Path) -> Header:
    """Raises ValueError if `file` is no whole GGUF file."""
    metadata = read_metadata(file)
    get = metadata.get
    architecture = get("general.architecture", "")
    by_default = get("tokenizer.ggml.model") == "llama" or get("tokenizer.ggml.pre") in BOS_BY_DEFAULT
    ends = (get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    return Header(
        kind=get("general.type", "model"),
        architecture=architecture,
        context_length=get(f"{architecture}.context_length", 0),
        chat_template=get("tokenizer.chat_template"),
        adds_bos=get("tokenizer.ggml.add_bos_token", by_default),
        ends=frozenset(end for end in ends if end is not None),
        token_types=get("tokenizer.ggml.token_type", ()),
    )


def check_header(file: Path, tokenizer: PreTrainedTokenizerBase) -> Header:
    """The header of a model's file, in which all is as she was trained.

    Raises:
        ValueError: its chat template, its BOS token, the tokens of its chats or the end of her turn are not.
    """
    header = read_header(file)
    family = detect_family(tokenizer)
    if not header.context_length:
        raise ValueError(f"{file.name} does not say how long its model's context is: it is no language model's file.")
    if found := _difference(header.chat_template, tokenizer):
        raise ValueError(
            f"The chat template in {file.name} is not the one she was trained with ({found}), and it may be preferred "
            "to TEMPLATE: write the file from a folder with her tokenizer."
        )
    if header.adds_bos != bool(runners_bos(tokenizer)):
        raise ValueError(
            f"A text gets {'a' if header.adds_bos else 'no'} BOS token in front with {file.name}, and she was trained "
            f"with{'out one' if header.adds_bos else ' one'}: set tokenizer.ggml.add_bos_token in the file."
        )
    end = tokenizer.convert_tokens_to_ids(family.end_of_turn)
    if family.end_of_turn not in _ENDS_BY_TEXT and end not in header.ends:
        raise ValueError(
            f"With {file.name} she would not stop: {family.end_of_turn!r} ends her turn, and no server would know it. "
            f"Set tokenizer.ggml.eot_token_id to {end} in the file."
        )
    text = tokenizer.apply_chat_template(_CHATS[-1], tokenize=False, add_generation_prompt=True)
    for token in (t for t in family.tokens if t in text):
        i = tokenizer.convert_tokens_to_ids(token)
        if i >= len(header.token_types) or header.token_types[i] not in _READ_AS_ONE:
            raise ValueError(
                f"{file.name} does not mark {token!r} as a token of its own, so that it would be read in pieces: "
                f"make the type of id {i} {TokenType.CONTROL.value} (control)."
            )
    return header


def _difference(template: str | None, tokenizer: PreTrainedTokenizerBase) -> str:
    """Where the text of a chat differs, in words; empty if it nowhere does."""
    if template in (None, tokenizer.chat_template):
        return ""
    for chat in _CHATS:
        due = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        try:
            given = tokenizer.apply_chat_template(
                chat, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            return f"it fails: {error}"
        if given != due:
            same = next(
                (i for i, (a, b) in enumerate(zip(given, due, strict=False)) if a != b), min(len(given), len(due))
            )
            return f"after {due[:same][-20:]!r} it has {given[same:][:20]!r}, not {due[same:][:20]!r}"
    return ""
