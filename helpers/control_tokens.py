"""Words that look like a model's control tokens, made harmless.

In: what somebody wrote. Out: the same to a reader's eye, with the first sign of each look-alike full-width. A chat
template puts words between control tokens and the tokenizer reads the whole, so `<|im_start|>` in a user's words would
begin a turn, in training as in serving. The same goes for ChatGLM3's tokens `sop` and `eop`, which are plain words, and
for what MythoMax's chats are made of, `### Instruction:`.
"""

import re

_OPENS = re.compile(
    # <|im_end|>, </s>, <end_of_turn>, <reserved_7>, <<SYS>>, <｜User｜>
    r"<(?=<?[|｜/]?[A-Za-z_][^<>\n]{0,60}>)"
    # [INST], [/INST], [gMASK], [multimodal], [control_8]
    r"|\[(?=(?:/?[a-z]?[A-Z][A-Z_]{1,30}|multimodal|control_[0-9]{1,4})\])"
    r"|#(?=##[ \t]*(?:Instruction|Input|Response)[ \t]*:)"
    r"|(?<!\w)[se](?=op(?!\w))"
)
_TO_WIDE = 0xFEE0  # from an ASCII sign to the full-width one


def defuse(text: str) -> str:
    """`text` in which no control token of a chat model is left, as long as it was."""
    return _OPENS.sub(lambda match: chr(ord(match.group()) + _TO_WIDE), text)
