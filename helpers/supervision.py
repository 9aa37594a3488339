"""Which tokens the companion learns from: her own words and her end of turn, and nothing else.

In: conversations and a tokenizer prepared by `families`. Out: rows of token ids with a mask, as TRL's SFTTrainer takes
them, and a coloured picture of the mask.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from helpers.conversations import Conversation
from helpers.families import detect_family
from helpers.persona import PersonaCard


@dataclass(frozen=True)
class Row:
    """Token ids of one conversation, and for each 1 where it is learned, 0 where it is only read. Equal lengths."""

    input_ids: list[int]
    assistant_masks: list[int]

    @property
    def supervised(self) -> list[int]:
        return [i for i, keep in zip(self.input_ids, self.assistant_masks, strict=True) if keep]


def supervise(tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]]) -> Row:
    """Tokenize one chat with the model's own template and mark what is learned: the text between the template's
    generation markers, up to and with each end of turn (some templates mark a line break after it too).

    Raises:
        ValueError: somebody's words hold a special token or one of the family's markers, which would be read as
            structure.
    """
    for message in chat:
        if found := special_token_in(tokenizer, message["content"]):
            raise ValueError(
                f"The {message['role']}'s words hold the special token {found!r}: {message['content'][:40]!r}."
            )
    end = tokenizer.convert_tokens_to_ids(detect_family(tokenizer).end_of_turn)
    encoded = tokenizer.apply_chat_template(list(chat), return_dict=True, return_assistant_tokens_mask=True)
    ids, marked, mask, ended = list(encoded["input_ids"]), encoded["assistant_masks"], [], False
    for token, keep in zip(ids, marked, strict=True):
        ended = ended and bool(keep)
        mask.append(int(keep and not ended))
        ended = ended or token == end
    return Row(ids, mask)


def special_token_in(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The first special token or marker of the family's chats in `text`; empty if there is none."""
    found = _special_tokens(tokenizer).search(text)
    return found.group() if found else ""


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern:
    special = {t.content: t.single_word for t in tokenizer.added_tokens_decoder.values() if t.special}
    special |= dict.fromkeys((*tokenizer.all_special_tokens, *detect_family(tokenizer).markers), False)
    # A token such as ChatGLM's "sop" is one only as a whole word.
    patterns = {t: rf"(?<!\w){re.escape(t)}(?!\w)" if word else re.escape(t) for t, word in special.items()}
    return re.compile("|".join(patterns[t] for t in sorted(patterns, key=len, reverse=True)))


def supervise_all(
    tokenizer: PreTrainedTokenizerBase, conversations: Iterable[Conversation], card: PersonaCard
) -> list[Row]:
    """`supervise` for each conversation, with the system prompt that its metadata calls for."""
    return [supervise(tokenizer, conversation.chat(card)) for conversation in conversations]


def mask_html(tokenizer: PreTrainedTokenizerBase, row: Row) -> str:
    """The row as HTML: learned tokens on green, the end of turn on dark green, what is only read in grey."""
    end = tokenizer.convert_tokens_to_ids(detect_family(tokenizer).end_of_turn)
    spans = []
    for token, keep in zip(row.input_ids, row.assistant_masks, strict=True):
        text = html.escape(tokenizer.decode([token])).replace("\n", "⏎<br>")
        style = "color:#8a8a8a"
        if keep:
            style = "background:#1b7f4b;color:white" if token == end else "background:#bfe8cf;color:#111"
        spans.append(f'<span style="{style};border-radius:3px;padding:0 1px;margin:0 1px">{text}</span>')
    return f'<div style="line-height:1.9;font-size:14px;max-width:70em">{"".join(spans)}</div>'
