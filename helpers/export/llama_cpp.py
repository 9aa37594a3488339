"""A GGUF file in memory, by llama.cpp itself (the package `cyllama`): what Ollama too will make of it.

In: a GGUF file. Out: `LlamaCpp`: its token ids for a text, its logits where the companion is supervised, and her greedy
replies.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from cyllama.llama import llama_cpp

from helpers.supervision import Row


class _Model(llama_cpp.LlamaModel):
    @property
    def n_vocab(self) -> int:
        """`LlamaContext.get_logits_ith` of cyllama 0.2.18 asks the model for it, which has not got it."""
        return self.get_vocab().n_vocab


class LlamaCpp:
    """A model on the CPU.

    Args:
        context: longest text and reply together, in tokens.

    Attributes:
        chat_template: as embedded in the file, None if there is none.
    """

    def __init__(self, file: Path, context: int = 1024):
        self._model = _Model(str(file))
        self._vocab = self._model.get_vocab()
        params = llama_cpp.LlamaContextParams()
        params.n_ctx = params.n_batch = context
        params.n_threads = params.n_threads_batch = torch.get_num_threads()
        self._context = llama_cpp.LlamaContext(self._model, params)
        self._batch = llama_cpp.LlamaBatch(n_tokens=context, embd=0, n_seq_max=1)

    @property
    def chat_template(self) -> str | None:
        return self._model.get_default_chat_template() or None

    def ids(self, text: str) -> list[int]:
        """Token ids of `text`, control tokens in it read as such, and none added."""
        return list(self._vocab.tokenize(text, False, True))

    def ends(self, token: int) -> bool:
        """Whether llama.cpp ends a reply at this token."""
        return self._vocab.is_eog(token)

    def logits(self, rows: Sequence[Row]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(logits [n, vocabulary] in float32, targets [n]), row by row; else as `logits.supervised_logits`."""
        for row in rows:
            if not (asked := [i for i, learned in enumerate(row.assistant_masks[1:]) if learned]):
                continue
            self._decode(row.input_ids, 0, set(asked))
            found = np.stack([np.asarray(self._context.get_logits_ith(i), dtype=np.float32) for i in asked])
            yield torch.from_numpy(found), torch.tensor([row.input_ids[i + 1] for i in asked])

    def reply(self, prompt: Sequence[int], max_new_tokens: int) -> list[int]:
        """Her greedy reply's token ids, with the one that ended it."""
        sampler = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
        sampler.add_greedy()
        self._decode(prompt, 0, {len(prompt) - 1})
        said = [sampler.sample(self._context, -1)]
        while len(said) < max_new_tokens and not self.ends(said[-1]):
            self._decode(said[-1:], len(prompt) + len(said) - 1, {0})
            said.append(sampler.sample(self._context, -1))
        return said

    def _decode(self, ids: Sequence[int], start: int, asked: set[int]) -> None:
        if start == 0:
            self._context.kv_cache_clear()
        self._batch.clear()
        for i, token in enumerate(ids):
            self._batch.add(token, start + i, [0], i in asked)
        if code := self._context.decode(self._batch):
            raise RuntimeError(f"llama.cpp could not read {len(ids)} tokens (code {code}).")
