"""Training, transformers and the server: the same messages give the same token ids, and greedy the same replies.

In: chats, the tokenizer and model that training left, a running server. Out: nothing, or `Disparity` with one sentence:
what is served is another companion than was trained.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.supervision import supervise

Chat = Sequence[dict[str, str]]


class Disparity(RuntimeError):
    """The server reads or answers otherwise than the companion was trained."""


@dataclass(frozen=True)
class Served:
    """A model on a server that has vLLM's `/tokenize` and gives token ids with its replies.

    `base_url` ends in /v1; `model` is a name that it answers to.
    """

    base_url: str
    api_key: str
    model: str

    def ids(self, chat: Chat, reply_follows: bool) -> list[int]:
        """The token ids that the server makes of a chat, with or without the opening of her next turn."""
        asked = {"messages": list(chat), "add_generation_prompt": reply_follows}
        return self._post(self.base_url.removesuffix("/v1") + "/tokenize", asked)["tokens"]

    def greedy(self, chat: Chat, max_tokens: int) -> list[int]:
        """The token ids of her greedy reply, with the one that ended it."""
        asked = {"messages": list(chat), "temperature": 0, "max_tokens": max_tokens, "return_token_ids": True}
        return self._post(self.base_url + "/chat/completions", asked)["choices"][0]["token_ids"]

    def _post(self, url: str, asked: dict[str, object]) -> dict:
        request = urllib.request.Request(
            url,
            json.dumps({"model": self.model, **asked}).encode(),
            {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"},
        )
        # No proxy: one of the environment must not come between two processes on one machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.URLError as error:
            raise Disparity(f"Parity cannot be checked: {url} answers {error}.") from error


def check_tokens(chats: Iterable[Chat], tokenizer: PreTrainedTokenizerBase, served: Served) -> int:
    """Compare the ids of whole chats, and of their prompts, in training, in transformers and on the server.

    Args:
        chats: each ends with her reply.

    Returns:
        How many tokens were compared.

    Raises:
        Disparity: they differ; the message shows where.
    """
    compared = 0
    for chat in chats:
        trained = supervise(tokenizer, chat).input_ids
        prompt = list(
            tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        )
        for what, ids, expected in (
            ("transformers", list(tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]), trained),
            ("the server", served.ids(chat, False), trained),
            ("transformers' prompt", prompt, trained[: len(prompt)]),
            ("the server's prompt", served.ids(chat[:-1], True), prompt),
        ):
            _same(what, ids, expected, tokenizer)
        compared += len(trained)
    return compared


def _same(what: str, ids: list[int], expected: list[int], tokenizer: PreTrainedTokenizerBase) -> None:
    if ids != expected:
        pairs = enumerate(zip(ids, expected, strict=False))
        at = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(expected)))
        seen, trained = (tokenizer.decode(part[at : at + 5]) for part in (ids, expected))
        raise Disparity(
            f"From token {at} on, {what} reads {seen!r} where training had {trained!r}: the chat template or the "
            "tokenizer of what is served is not the one that she was trained with."
        )


@torch.inference_mode()
def check_replies(
    chats: Iterable[Chat],
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    served: Served,
    dtype: torch.dtype,
    max_tokens: int,
) -> int:
    """Compare greedy replies: each token of the server's must be the one that `model` finds most likely after the same
    words, which makes the whole reply the one that transformers would give. Another token passes only if the two are so
    close that rounding in the server's `dtype` decides between them.

    Args:
        chats: each waits for her reply.
        dtype: in which the server computes.

    Returns:
        How many tokens were compared.

    Raises:
        Disparity: they differ; the message shows where.
    """
    compared = 0
    for chat in chats:
        prompt = list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])
        said = served.greedy(chat, max_tokens)
        ids = torch.tensor([prompt + said], device=model.device)
        logits = model(input_ids=ids, logits_to_keep=len(said) + 1).logits[0, :-1].float()
        for i, (row, token) in enumerate(zip(logits, said, strict=True)):
            gap = (row.max() - row[token]).item()
            if gap > tie(model, dtype, row.abs().max().item()):
                raise Disparity(
                    f"To {chat[-1]['content'][:20]!r} the server answers {tokenizer.decode(said[: i + 1])!r}, where "
                    f"transformers says {tokenizer.decode([row.argmax().item()])!r} instead of its last token (their "
                    f"logits are {gap:.2g} apart): the weights that are served are not those that were trained."
                )
        compared += len(said)
    return compared


def tie(model: PreTrainedModel | PeftModel, dtype: torch.dtype, largest: float) -> float:
    """How far apart two logits can be and still change places by rounding alone.

    Each layer rounds its numbers to `dtype`, and its float32 sums of `hidden_size` products err like a random walk of
    as many steps (Higham and Mary, 2019, doi:10.1137/18M1226312); the layers' errors add up like another one.
    """
    config = model.config.get_text_config()
    layer = max(torch.finfo(dtype).eps, sqrt(config.hidden_size) * torch.finfo(torch.float32).eps)
    return sqrt(config.num_hidden_layers) * layer * largest
