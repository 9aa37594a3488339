"""The dialogues that a quantizer looks at: drawn from training, and never one that she is measured on.

In: training dialogues and those held out. Out: supervised rows.
"""

import random
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

from helpers.conversations import Conversation
from helpers.japanese import bare
from helpers.persona import PersonaCard
from helpers.supervision import Row, supervise_all


class Leak(ValueError):
    """A calibration dialogue is held out: what is measured on it would say nothing."""


def calibration_rows(
    training: Sequence[Conversation],
    held_out: Iterable[Conversation],
    count: int,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    card: PersonaCard,
) -> list[Row]:
    """`count` training dialogues, or all if there are fewer, drawn by `seed`.

    Args:
        held_out: validation and test dialogues.

    Raises:
        Leak: one that was drawn has the id or the words of a held-out one, whatever their width and punctuation.
    """
    drawn = random.Random(seed).sample(training, min(count, len(training)))
    known = {mark: c.id for c in held_out for mark in _marks(c)}
    for conversation in drawn:
        if found := _marks(conversation) & known.keys():
            raise Leak(
                f"The calibration dialogue {conversation.id} is the held-out dialogue {known[found.pop()]}: take it "
                "out of the training data (run 01 and 02 again)."
            )
    return supervise_all(tokenizer, drawn, card)


def _marks(conversation: Conversation) -> set[tuple[str, ...]]:
    words = tuple(bare(message.content) for message in conversation.messages)
    return {words, ("id", conversation.id)} if conversation.id else {words}
