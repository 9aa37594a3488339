"""Rows and preference pairs of an exact number of tokens, so that no token is padding.

In: a tokenizer of a known family, a number of tokens. Out: rows of random ids, as `helpers.supervision` makes them of
dialogues, and pairs of random letters.
"""

import random

from transformers import PreTrainedTokenizerBase

from helpers.conversations import Message, Metadata
from helpers.families import detect_family
from helpers.persona import PersonaCard
from helpers.supervision import Row
from helpers.train.preferences import PreferencePair

TURN = 64  # tokens that are read, then as many that are learned
REPLY = 256  # letters of a pair's replies


def random_rows(
    tokenizer: PreTrainedTokenizerBase, count: int, context: int, vocabulary: int, seed: int = 0
) -> list[Row]:
    """`count` rows of `context` ids (a multiple of 128), half of them learned, each learned turn with its end. The ids
    are those of the model's `vocabulary` that the tokenizer does not use."""
    end = tokenizer.convert_tokens_to_ids(detect_family(tokenizer).end_of_turn)
    drawn, rows = random.Random(seed), []
    mask = ([0] * TURN + [1] * TURN) * (context // (2 * TURN))
    for _ in range(count):
        ids = [drawn.randrange(len(tokenizer), vocabulary) for _ in mask]
        ids[2 * TURN - 1 :: 2 * TURN] = [end] * (context // (2 * TURN))
        rows.append(Row(ids, mask))
    return rows


def random_pairs(
    tokenizer: PreTrainedTokenizerBase, card: PersonaCard, count: int, context: int, seed: int = 0
) -> list[PreferencePair]:
    """`count` pairs, each of whose replies ends a talk of `context` tokens."""
    drawn = random.Random(seed)

    def letters(length: int) -> str:
        return "".join(drawn.choices("abcdefghijklmnopqrstuvwxyz", k=length))

    def pair(length: int) -> PreferencePair:
        asked = Message(role="user", content=letters(length))
        replies = {"chosen": letters(REPLY), "rejected": letters(REPLY)}
        return PreferencePair(id="random", fault="mechanical", messages=[asked], metadata=Metadata(), **replies)

    # A letter is one token: the tokenizer has merged none.
    length = context - tokens_of(tokenizer, pair(1), card)[0] + 1
    return [pair(length) for _ in range(count)]


def tokens_of(tokenizer: PreTrainedTokenizerBase, pair: PreferencePair, card: PersonaCard) -> tuple[int, int]:
    """Tokens of the talk with the better reply, and those of the reply alone."""
    prompt = pair.prompt(card)
    asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    told = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": pair.chosen}])["input_ids"]
    return len(told), len(told) - len(asked)
