"""An Ollama Modelfile that speaks to the companion as she was trained.

In: the persona card and the tokenizer. Out: the Modelfile's text, with the card's system prompt and a TEMPLATE that
gives the same text as the tokenizer's chat template. Grammar: `parser/parser.go` and `template/template.go` of
ollama/ollama.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from helpers.families import detect_family
from helpers.persona import Level, PersonaCard, system_prompt

# Go's text/template. Gemma 3 has no system turn: the system text stands in front of the first user's words. Ollama's
# tokenizer adds the BOS, so the template must not.
_GEMMA3 = """{{- $prefix := "" }}
{{- if .System }}{{ $prefix = printf "%s\\n\\n" .System }}{{ end }}
{{- range .Messages }}
{{- if eq .Role "user" }}<start_of_turn>user
{{ $prefix }}{{ .Content }}<end_of_turn>
{{ $prefix = "" }}
{{- else if eq .Role "assistant" }}<start_of_turn>model
{{ .Content }}<end_of_turn>
{{ end }}
{{- end }}<start_of_turn>model
"""

_PROBE = (
    {"role": "system", "content": "一\n二"},
    {"role": "user", "content": "三"},
    {"role": "assistant", "content": "四"},
    {"role": "user", "content": "五"},
)


def modelfile(
    card: PersonaCard,
    tokenizer: PreTrainedTokenizerBase,
    model: str = "./merged",
    level: Level = "friend",
    *,
    temperature: float = 0.8,
    top_k: int = 40,
    min_p: float = 0.05,
    num_ctx: int = 4096,
) -> str:
    """The Modelfile's text.

    Args:
        model: what FROM names: a folder with safetensors, relative to the Modelfile.
        level: relationship level of the system prompt; a Modelfile holds one.
        num_ctx: context length in tokens. Ollama's default of 2048 cuts long talks at the start, where the persona is.

    Raises:
        NotImplementedError: the tokenizer's family has no Ollama template.
        ValueError: the tokenizer's chat template is another than the family's, or the system prompt holds what a
            Modelfile cannot.
    """
    family = detect_family(tokenizer)
    if family.name != "gemma3":
        raise NotImplementedError(
            f"There is no Modelfile for the family {family.name}: only gemma3 has an Ollama template so far."
        )
    trained = tokenizer.apply_chat_template(list(_PROBE), tokenize=False, add_generation_prompt=True)
    if trained != tokenizer.bos_token + _as_ollama(_PROBE):
        raise ValueError(
            "The tokenizer's chat template is not Gemma 3's: Ollama would speak to another person than was trained."
        )
    system = system_prompt(card, level)
    _check(system, tokenizer)
    return "\n".join(
        [
            f"FROM {model}",
            f'SYSTEM """{system}"""',
            f'TEMPLATE """{_GEMMA3}"""',
            f"PARAMETER stop {family.end_of_turn}",
            f"PARAMETER temperature {temperature}",
            f"PARAMETER top_k {top_k}",
            f"PARAMETER min_p {min_p}",
            f"PARAMETER num_ctx {num_ctx}",
            "",
        ]
    )


def _as_ollama(chat: Sequence[dict[str, str]]) -> str:
    """What `_GEMMA3` makes of a chat."""
    prefix, text = "", ""
    for message in chat:
        if message["role"] == "system":
            prefix = message["content"] + "\n\n"
        elif message["role"] == "user":
            text += f"<start_of_turn>user\n{prefix}{message['content']}<end_of_turn>\n"
            prefix = ""
        else:
            text += f"<start_of_turn>model\n{message['content']}<end_of_turn>\n"
    return text + "<start_of_turn>model\n"


def _check(system: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if '"""' in system:
        raise ValueError('The system prompt holds """, which ends a text in a Modelfile: take it out of the card.')
    # Ollama's parser silently drops what Go does not call printable, the ideographic space among it.
    if dropped := [c for c in system if not c.isprintable() and c not in "\n\t"]:
        raise ValueError(
            f"The system prompt holds U+{ord(dropped[0]):04X}, which Ollama drops from a Modelfile: "
            "take it out of the persona card, so that she is told what she was trained with."
        )
    # `all_special_tokens` has the named ones only, and leaves out Gemma's turn tokens.
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    if found := [token for token in special if token in system]:
        raise ValueError(f"The system prompt holds the special token {found[0]!r}: take it out of the persona card.")
