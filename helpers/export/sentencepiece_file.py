"""The `tokenizer.model` of a SentencePiece vocabulary, made from the fast tokenizer that she was trained with.

In: a tokenizer. Out: the file's bytes, or None for a vocabulary of another kind. llama.cpp's converter reads a
SentencePiece vocabulary from this file alone, and a checkpoint that transformers saved, or that came out of a GGUF, has
none.
"""

import json
import re

from sentencepiece import sentencepiece_model_pb2
from transformers import PreTrainedTokenizerBase

_BPE = 2  # TrainerSpec.ModelType
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # ModelProto.SentencePiece.Type
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


def sentencepiece_model(tokenizer: PreTrainedTokenizerBase) -> bytes | None:
    """A serialized `sentencepiece.ModelProto` with the tokenizer's pieces, ids and merges.

    SentencePiece joins the two neighbours whose joint piece has the highest score, a fast tokenizer those of the first
    merge in its list: a piece's score is minus the place of the first merge that makes it.
    """
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    model, added = whole["model"], whole["added_tokens"]
    if model["type"] != "BPE" or not model.get("byte_fallback"):
        return None
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    kinds = {token["content"]: _CONTROL if token["special"] else _USER_DEFINED for token in added}
    kinds[model["unk_token"]] = _UNKNOWN
    ids = {token["id"]: token["content"] for token in added} | {i: piece for piece, i in model["vocab"].items()}
    for byte in range(128):
        # transformers calls the byte of the tab in Gemma 1 and 2 by what it stands for.
        if f"<0x{byte:02X}>" not in model["vocab"] and chr(byte) in model["vocab"]:
            ids[model["vocab"][chr(byte)]] = f"<0x{byte:02X}>"

    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.model_type = _BPE
    proto.trainer_spec.byte_fallback = True
    proto.trainer_spec.vocab_size = len(ids)
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = bool(getattr(tokenizer, "add_prefix_space", False))
    proto.normalizer_spec.remove_extra_whitespaces = False
    for i in range(len(ids)):
        kind = kinds.get(ids[i], _BYTE if _BYTE_PIECE.fullmatch(ids[i]) else _NORMAL)
        # Below every piece that a merge makes: what none makes is never the result of one.
        score = -float(ranks.get(ids[i], len(model["merges"])))
        proto.pieces.add(piece=ids[i], score=score, type=kind)
    return proto.SerializeToString()
