"""A language model that was not tuned, as a judge of what is Japanese.

In: a model folder, texts. Out: how surprised it is by each text, in nats a letter. What it needs is imported when it is
asked, for most evaluations do without.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class LanguageModel:
    """The model in `folder` (or of that hub id), loaded when it is first asked: in float32 on a CPU, in bfloat16 on a
    GPU."""

    folder: Path | str

    @cached_property
    def _loaded(self) -> tuple:
        import torch
        from transformers import AutoModelForCausalLM

        from helpers.families import load_tokenizer
        from helpers.quiet import hide_gptqmodel

        hide_gptqmodel()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype, device_map=device)
        return model, load_tokenizer(self.folder)

    def release(self) -> None:
        """Hold it no longer; whoever asks next loads it again."""
        self.__dict__.pop("_loaded", None)

    def surprise(self, texts: Sequence[str], before: Sequence[str] | None = None) -> np.ndarray:
        """Nats a letter of each text, which is not empty; after the words `before` it, if they are given."""
        import torch

        from helpers.export.logits import supervised_logits
        from helpers.supervision import Row

        model, tokenizer = self._loaded
        # A first token, without which the first of the text would not be asked for; where a family has none, the pad
        # token, such as Qwen's <|endoftext|> that stands between its documents.
        start = [tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id]
        rows = []
        for text, context in zip(texts, before or [""] * len(texts), strict=True):
            read, said = (tokenizer.encode(part, add_special_tokens=False) for part in (context, text))
            rows.append(Row([*start, *read, *said], [0] * (len(start) + len(read)) + [1] * len(said)))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids))  # little padding
        losses = [
            torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu()
            for logits, targets in supervised_logits(model, [rows[i] for i in order])
        ]
        ends = np.cumsum([0, *(sum(rows[i].assistant_masks[1:]) for i in order)])
        total = torch.cat(losses).double().numpy() if losses else np.zeros(0)
        sums = np.zeros(len(rows))
        for i, (a, b) in zip(order, pairwise(ends), strict=True):
            sums[i] = total[a:b].sum()
        return sums / np.array([max(len(text), 1) for text in texts])
