"""Model families: what differs from one to the next when a companion is trained and served.

In: a tokenizer. Out: its `Family`, and a tokenizer whose chat template marks what the companion says. Adding a family
is adding one entry to `FAMILIES` and its template to `templates/`.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Family:
    """One family's conventions.

    Attributes:
        end_of_turn: the token that closes the companion's turn; must be supervised and be a stop token.
        pad: a padding token that is not the end of turn.
        template: file in `templates/`: the published chat format, with generation markers around what is learned.
        lora_targets: module names or PEFT's "all-linear".
    """

    name: str
    end_of_turn: str
    pad: str
    template: str
    lora_targets: str | tuple[str, ...] = "all-linear"


FAMILIES = {
    family.name: family
    for family in (
        Family("gemma3", "<end_of_turn>", "<pad>", "gemma3.jinja"),
        Family("qwen2.5", "<|im_end|>", "<|endoftext|>", "qwen2.5.jinja"),
    )
}


def detect_family(tokenizer: PreTrainedTokenizerBase) -> Family:
    """The family whose end-of-turn and pad tokens the tokenizer's vocabulary holds.

    Raises:
        ValueError: none fits; the message lists the families known.
    """
    missing = (None, tokenizer.unk_token_id)
    for family in FAMILIES.values():
        if all(tokenizer.convert_tokens_to_ids(t) not in missing for t in (family.end_of_turn, family.pad)):
            return family
    raise ValueError(
        f"The tokenizer {tokenizer.name_or_path!r} belongs to no family known here "
        f"({', '.join(FAMILIES)}): add an entry to helpers/families.py."
    )


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give `tokenizer` its family's pad token and a chat template with generation markers, in place.

    Raises:
        ValueError: unknown family.
    """
    family = detect_family(tokenizer)
    tokenizer.pad_token = family.pad
    tokenizer.chat_template = (TEMPLATES / family.template).read_text(encoding="utf-8")
    return tokenizer


def stop_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end generation: the end of turn, and the tokenizer's own end of sequence."""
    end_of_turn = tokenizer.convert_tokens_to_ids(detect_family(tokenizer).end_of_turn)
    return sorted({end_of_turn, tokenizer.eos_token_id} - {None})
