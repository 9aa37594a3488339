"""Train, validation and test, by dialogue.

In: conversations. Out: three lists. Each has its share of every relationship level, and no first turn of a user's is on
two sides.
"""

import random
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.conversations import Conversation


@dataclass(frozen=True)
class Split:
    train: list[Conversation]
    validation: list[Conversation]
    test: list[Conversation]


def first_turn(conversation: Conversation) -> str:
    """The user's first words, in one spelling: width and spaces do not count."""
    return "".join(unicodedata.normalize("NFKC", conversation.messages[0].content).split()).casefold()


def split_dialogues(
    conversations: Sequence[Conversation], validation_share: float, test_share: float, seed: int
) -> Split:
    """Split by dialogue, stratified by relationship level; the same seed gives the same split in any input order.

    Dialogues that share a user's first turn stay together, in train.

    Raises:
        ValueError: the shares leave nothing to train on.
    """
    if min(validation_share, test_share) < 0 or validation_share + test_share >= 1:
        raise ValueError(
            f"validation_share {validation_share} and test_share {test_share} leave nothing to train on: "
            f"give shares of 0 or more that add up to less than 1."
        )
    openings: dict[str, int] = {}
    levels: dict[str, list[Conversation]] = {}
    for conversation in sorted(conversations, key=lambda c: c.id):
        openings[first_turn(conversation)] = openings.get(first_turn(conversation), 0) + 1
        levels.setdefault(conversation.metadata.affection_level, []).append(conversation)
    validation, test = set(), set()
    for level, members in levels.items():
        alone = [c.id for c in members if openings[first_turn(c)] == 1]
        random.Random(f"{seed}:{level}").shuffle(alone)
        n_test, n_validation = round(test_share * len(members)), round(validation_share * len(members))
        test.update(alone[:n_test])
        validation.update(alone[n_test : n_test + n_validation])
    held_out = validation | test
    return Split(
        train=[c for c in conversations if c.id not in held_out],
        validation=[c for c in conversations if c.id in validation],
        test=[c for c in conversations if c.id in test],
    )


def sample(conversations: Sequence[Conversation], most: int | None, seed: int) -> list[Conversation]:
    """A seeded sample of at most `most` conversations, in their order; all of them if `most` is None."""
    if most is None or most >= len(conversations):
        return list(conversations)
    kept = sorted(random.Random(seed).sample(range(len(conversations)), most))
    return [conversations[i] for i in kept]
