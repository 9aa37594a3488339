"""What must hold before a training run is worth its electricity.

In: tokenizer, and rows or pairs. Out: nothing, or `PreflightError` with one sentence that says what is wrong and how to
mend it.
"""

from collections.abc import Sequence

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from helpers.families import detect_family
from helpers.supervision import Row


class PreflightError(ValueError):
    """The run would teach the wrong thing."""


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Padding must be a token of its own: a collator masks pads, and with them every end of turn that looks alike.

    Raises:
        PreflightError: pad is missing, or equals the end of sequence or of turn.
    """
    end = detect_family(tokenizer).end_of_turn
    if tokenizer.pad_token is None:
        raise PreflightError("The tokenizer has no pad token: pass it through families.prepare_tokenizer().")
    if tokenizer.pad_token in (tokenizer.eos_token, end):
        raise PreflightError(
            f"The pad token is {tokenizer.pad_token!r}, which also ends a turn, so the end would be masked and she "
            "would never stop: pass the tokenizer through families.prepare_tokenizer()."
        )


def check_rows(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int) -> None:
    """Every row, as truncated to `max_length` tokens, must begin with exactly one BOS, if the family has one (Llama 2's
    format has one in front of each round), and teach at least one turn to its end; only the turn that the cut breaks
    may lack its end.

    Raises:
        PreflightError: naming the first bad row by its index.
    """
    if not rows:
        raise PreflightError("There is not one row to train on: look at the report of 01_data.")
    family = detect_family(tokenizer)
    end = tokenizer.convert_tokens_to_ids(family.end_of_turn)
    probe = tokenizer.apply_chat_template([{"role": "user", "content": "x"}])["input_ids"]
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id in probe else None
    for n, row in enumerate(rows):
        ids, mask = row.input_ids[:max_length], row.assistant_masks[:max_length]
        if not any(mask):
            raise PreflightError(
                f"Row {n} has no supervised token within {max_length} tokens (it has {len(row.input_ids)}): raise "
                "max_length, shorten the system prompt, or drop the row."
            )
        due = [0] + [i + 1 for i, token in enumerate(ids[:-1]) if family.bos_every_round and token == end]
        if bos is not None and [i for i, token in enumerate(ids) if token == bos] != due:
            where = "in front of each round" if family.bos_every_round else "in front"
            raise PreflightError(f"Row {n} has {ids.count(bos)} BOS tokens where {len(due)}, {where}, is due.")
        cut = len(row.input_ids) > max_length
        if cut and mask[-1] and not any(keep and token == end for token, keep in zip(ids, mask, strict=True)):
            raise PreflightError(
                f"Row {n} is cut at {max_length} tokens within her first turn, so its end is not learned: raise "
                "max_length, shorten the system prompt, or drop the row."
            )
        for i, keep in enumerate(mask):
            closes = keep and (not cut if i + 1 == len(mask) else not mask[i + 1])
            if closes and ids[i] != end:
                raise PreflightError(
                    f"Row {n} teaches a turn that does not end with {family.end_of_turn!r} (token {i}): the chat "
                    "template's generation markers must enclose the end of turn."
                )


def check_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Dataset, expected: int, max_length: int) -> None:
    """All `expected` preference pairs are there, as TRL tokenized them (`prompt_ids`, `chosen_ids`, `rejected_ids`),
    with the BOS tokens that are due; each reply is whole within `max_length` tokens and ends with one end of turn.

    Raises:
        PreflightError: naming the first bad pair by its index.
    """
    if len(pairs) != expected:
        raise PreflightError(
            f"{expected - len(pairs)} of {expected} pairs have a context of {max_length} tokens or more and would be "
            "dropped: raise max_length, or shorten the system prompt."
        )
    family = detect_family(tokenizer)
    end = tokenizer.convert_tokens_to_ids(family.end_of_turn)
    probe = tokenizer.apply_chat_template([{"role": "user", "content": "x"}])["input_ids"]
    due = 1 if tokenizer.bos_token_id in probe else 0
    for n, pair in enumerate(pairs):
        rounds = 1 + pair["prompt_ids"].count(end) if family.bos_every_round else 1
        if due and pair["prompt_ids"].count(tokenizer.bos_token_id) != rounds:
            raise PreflightError(
                f"Pair {n} has {pair['prompt_ids'].count(tokenizer.bos_token_id)} BOS tokens where {rounds} is due."
            )
        for side in ("chosen", "rejected"):
            reply = pair[f"{side}_ids"]
            length = len(pair["prompt_ids"]) + len(reply)
            if length > max_length:
                raise PreflightError(
                    f"Pair {n} is {length} tokens long with its {side} reply and would be cut at {max_length}: raise "
                    "max_length, or shorten the context."
                )
            if reply.count(end) != 1 or tokenizer.decode(reply[reply.index(end) + 1 :]).strip():
                raise PreflightError(
                    f"Pair {n} has a {side} reply that does not end with one {family.end_of_turn!r}: the chat template "
                    "must close her turn."
                )
