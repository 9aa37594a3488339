"""Words that look like a model's control tokens, made harmless.

In: what somebody wrote. Out: the same to a reader's eye, with the first sign of each look-alike full-width. A chat
template puts words between control tokens and the tokenizer reads the whole, so `<|im_start|>` in a user's words would
begin a turn, in training as in serving.
"""

import re

# <|im_end|>, </s>, <end_of_turn>, <reserved_7>, <<SYS>>, <｜User｜>, and [INST], [/INST], [gMASK], [multimodal],
# [control_8]. Strings of plain words are left: ChatGLM3's "sop", MythoMax's "### Instruction:" and "### Response:".
_OPENS = re.compile(
    r"<(?=<?[|｜/]?[A-Za-z_][^<>\n]{0,60}>)|\[(?=(?:/?[a-z]?[A-Z][A-Z_]{1,30}|multimodal|control_\d{1,3})\])"
)
_WIDE = {"<": "＜", "[": "［"}


def defuse(text: str) -> str:
    """`text` in which no control token of a chat model is left, as long as it was."""
    return _OPENS.sub(lambda match: _WIDE[match.group()], text)
