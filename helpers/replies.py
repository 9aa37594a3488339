"""What the companion answered, whoever asked her and however: from a model in memory or from a server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """`text` without special tokens; `stopped` is whether she ended by herself within the limit; `tokens` are those of
    her words, without the one that ended them; `prompt_tokens` those that she read, if it is known."""

    text: str
    stopped: bool
    tokens: int
    prompt_tokens: int | None = None
