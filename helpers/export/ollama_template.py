"""A family's chat template in Ollama's language, Go's text/template, and what of a chat's text is not in it.

In: the tokenizer she was trained with. Out: TEMPLATE, which gives the same text as the tokenizer's chat template but
for the first BOS token, which Ollama's runner adds. It stands beside the family's chat template, as `*.gotmpl`.
"""

from transformers import PreTrainedTokenizerBase

from helpers.families import TEMPLATES, detect_family

_TRIM = '{{ template "trim"'


def ollama_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """TEMPLATE, with the definitions that it calls behind.

    Raises:
        ValueError: the tokenizer's chat template is another than its family's.
    """
    family = detect_family(tokenizer)
    file = TEMPLATES / family.template
    if tokenizer.chat_template != file.read_text(encoding="utf-8"):
        raise ValueError(
            f"The tokenizer's chat template is not that of its family, {family.name}: Ollama would speak to another "
            "person than was trained. Load it with families.load_tokenizer()."
        )
    text = file.with_suffix(".gotmpl").read_text(encoding="utf-8")
    if _TRIM in text:
        text += (TEMPLATES / "trim.gotmpl").read_text(encoding="utf-8")
    return text


def runners_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The BOS token that her chats begin with, and that the runner has to add; empty if they begin with none."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    bos = tokenizer.bos_token
    return bos if bos and text.startswith(bos) else ""
