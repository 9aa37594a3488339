"""An Ollama Modelfile that speaks to the companion as she was trained.

In: the persona card, the tokenizer and a `Source`. Out: the Modelfile's text: the card's system prompt, the family's
TEMPLATE, what ends her turn, her sampling, and a context that holds the persona. Grammar: parser/parser.go of
ollama/ollama v0.33.0-rc2.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerBase

from helpers.export.ollama_source import Source
from helpers.export.ollama_template import ollama_template
from helpers.families import stop_token_ids
from helpers.persona import Level, PersonaCard, system_prompt
from helpers.supervision import special_token_in

_ROUND_TO = 256


def modelfile(
    card: PersonaCard,
    tokenizer: PreTrainedTokenizerBase,
    source: Source,
    folder: Path,
    *,
    sampling: GenerationConfig,
    talk_tokens: int,
    level: Level = "friend",
) -> str:
    """The Modelfile's text.

    Args:
        folder: where the file will stand; FROM and ADAPTER are relative to it.
        sampling: the model's own, as vLLM takes it; Ollama's defaults are others.
        talk_tokens: room for the talk beside the persona, in tokens.
        level: relationship level of the system prompt; a Modelfile holds one.

    Raises:
        ValueError: the tokenizer's chat template is not its family's, the persona or a path holds what a Modelfile
            cannot, or persona and talk are more than the model's context.
    """
    system = system_prompt(card, level)
    _check_system(system, card, tokenizer)
    persona = _persona_tokens(system, tokenizer)
    stops = [tokenizer.convert_ids_to_tokens(i) for i in stop_token_ids(tokenizer)]
    parameters = [
        *(("stop", stop) for stop in stops),
        ("num_ctx", _context(persona, talk_tokens, source.context_length)),
        ("num_keep", persona),
        ("temperature", _or(sampling.temperature, 1.0)),
        ("top_k", _or(sampling.top_k, 0)),
        ("top_p", _or(sampling.top_p, 1.0)),
        ("min_p", _or(sampling.min_p, 0.0)),
        ("repeat_penalty", _or(sampling.repetition_penalty, 1.0)),
    ]
    return "\n".join(
        [
            f"FROM {_relative(source.model, folder)}",
            *([f"ADAPTER {_relative(source.adapter, folder)}"] if source.adapter else []),
            f'SYSTEM """{system}"""',
            f'TEMPLATE """{ollama_template(tokenizer)}"""',
            *(f"PARAMETER {name} {value}" for name, value in parameters),
            "",
        ]
    )


def _or(value: float | None, neutral: float) -> float:
    return neutral if value is None else value


def _relative(path: Path, folder: Path) -> str:
    """A path that Ollama takes for one, and not for the name of a model of its own."""
    text = Path(os.path.relpath(path, folder)).as_posix()
    text = text if text.startswith("../") else f"./{text}"
    if text != text.strip() or (dropped := _unprintable(text)):
        what = f"U+{ord(dropped):04X}" if text == text.strip() else "a blank at its end"
        raise ValueError(f"The path {text!r} holds {what}, which Ollama drops from a Modelfile: rename it.")
    return text


def _unprintable(text: str) -> str:
    """The first character that Ollama's parser drops without a word, the ideographic space among them; line breaks and
    tabs it keeps."""
    return next((c for c in text if not c.isprintable() and c not in "\n\r\t"), "")


def _check_system(system: str, card: PersonaCard, tokenizer: PreTrainedTokenizerBase) -> None:
    found, why = "", ""
    if '"""' in system:
        found, why = '"""', "which ends a text in a Modelfile"
    elif dropped := _unprintable(system):
        found, why = dropped, "which Ollama drops from a Modelfile"
    elif token := special_token_in(tokenizer, system):
        found, why = token, "which her tokenizer reads as structure"
    if found:
        name = f"U+{ord(found):04X}" if len(found) == 1 else found
        where = next((place for place, text in _texts(card.model_dump(by_alias=True)) if found in text), "its wording")
        raise ValueError(f"The persona card holds {name} in {where}, {why}: take it out of the card.")


def _texts(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    """(place, text) of every text in a card; entries of a list are counted from 1."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for n, part in enumerate(value, 1):
            yield from _texts(part, f"{place}, entry {n}")
    elif isinstance(value, str):
        yield place, value


def _persona_tokens(system: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens from the beginning of a chat to the end of the system prompt."""
    chat = [{"role": "system", "content": system}, {"role": "user", "content": "x"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    end = text.index(system.strip()) + len(system.strip())
    return len(tokenizer(text[:end], add_special_tokens=False)["input_ids"])


def _context(persona: int, talk: int, limit: int) -> int:
    """num_ctx, in tokens."""
    if persona + talk > limit:
        room = f"at most {limit - persona}" if limit > persona else "nothing, so shorten the persona card"
        raise ValueError(
            f"The persona takes {persona} tokens and the talk is to have {talk}, but the model's context is {limit} "
            f"tokens: talk_tokens may be {room}."
        )
    return min(limit, -(-(persona + talk) // _ROUND_TO) * _ROUND_TO)
