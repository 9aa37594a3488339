"""A fast tokenizer out of a sentencepiece model.

In: a `tokenizer.model` (BPE) and the tokens that the published tokenizer adds behind it. Out: a tokenizer that needs
no code from the checkpoint, tried against sentencepiece itself before it is handed out.
"""

from pathlib import Path

from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from helpers.conversion.layouts import NotConvertible

_SPACE = "▁"
_BPE = 2
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
PROBES = (
    "おはよう！今日はどうしたの？😊 ちょっと疲れてる…かも。",
    "你好，我是樱花。请问有什么可以帮您的吗？【注意】《标题》",
    "Hello, world! It's 3.14159 at 12:30 -- people hope, don't they?",
    "  two  spaces,\ttab\n\nand lines\r\n ends here  ",
    "def f(x):\n    return x + 1  # 足す\n```python\n---\n<p>a</p>",
    "𠮷野家で𩸽を食べる👩‍👩‍👧‍👦 ﾊﾝｶｸ ＦＵＬＬ　ＷＩＤＴＨ ①㍻ Ångström \u200b\u00a0é",
    " ",
    "\n",
)


def build_tokenizer(
    file: Path, added_tokens: tuple[str, ...] = (), prefix: tuple[str, ...] = (), max_length: int | None = None
) -> PreTrainedTokenizerFast:
    """The tokenizer of a sentencepiece model.

    Args:
        file: the `tokenizer.model`.
        added_tokens: control tokens whose ids follow its vocabulary. Those that are plain words are found only as
            whole words, so that "eop" does not tear "people".
        prefix: tokens put before every encoded text.
        max_length: the model's context in tokens.

    Raises:
        FileNotFoundError: there is no such file.
        NotConvertible: it is no sentencepiece model of the BPE kind, or the tokenizer built from it disagrees with
            sentencepiece on one of `PROBES`.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing, and the tokenizer is made from it: download it again.")
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
        if not model.pieces:
            raise DecodeError("it has no pieces")
        processor = SentencePieceProcessor(model_proto=model.SerializeToString())
    except (DecodeError, RuntimeError) as error:
        raise NotConvertible(
            f"{file} is no sentencepiece model ({' '.join(str(error).split())[:100]}); GLM-4, which has another "
            "tokenizer, publishes native checkpoints whose names end in -hf."
        ) from error
    if model.trainer_spec.model_type != _BPE:
        raise NotConvertible(f"{file} is a sentencepiece model of another kind than BPE.")
    tokenizer = _fast(model)
    _compare(tokenizer, processor, file)
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False, single_word=t.isalpha()) for t in added_tokens])
    if prefix:
        ids = [(token, tokenizer.token_to_id(token)) for token in prefix]
        tokenizer.post_processor = TemplateProcessing(
            single=[*prefix, "$A"], pair=[*prefix, "$A", "$B"], special_tokens=ids
        )
    bos, eos, unk = (processor.id_to_piece(i) for i in (processor.bos_id(), processor.eos_id(), processor.unk_id()))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        pad_token=unk,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=max_length,
    )


def _fast(model) -> Tokenizer:
    pieces = {piece.piece: i for i, piece in enumerate(model.pieces)}
    atoms = {piece.piece for piece in model.pieces if piece.type != _NORMAL}
    scores = {piece.piece: piece.score for piece in model.pieces}
    tokenizer = Tokenizer(
        BPE(
            vocab=pieces,
            merges=generate_merges(pieces, scores, skip_tokens=atoms),
            unk_token=next(piece.piece for piece in model.pieces if piece.type == _UNKNOWN),
            fuse_unk=True,
            byte_fallback=model.trainer_spec.byte_fallback,
        )
    )
    spec = model.normalizer_spec
    steps = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    for kind in (_CONTROL, _UNKNOWN, _USER_DEFINED):
        tokenizer.add_tokens(
            [
                AddedToken(piece.piece, special=kind != _USER_DEFINED, normalized=False)
                for piece in model.pieces
                if piece.type == kind
            ]
        )
    return tokenizer


def _compare(tokenizer: Tokenizer, processor: SentencePieceProcessor, file: Path) -> None:
    for text in PROBES:
        ids = processor.encode(text)
        if tokenizer.encode(text, add_special_tokens=False).ids != ids or tokenizer.decode(ids) != processor.decode(
            ids
        ):
            raise NotConvertible(
                f"{file} does what the fast tokenizers cannot: they read {text!r} otherwise than sentencepiece."
            )
