"""The metadata of a GGUF file, fast.

In: a file. Out: its keys and values, and certainty that no tensor is cut off. `gguf.GGUFReader` makes an array of each
element of a list, which takes 20 s for a vocabulary of 262,144 tokens; this takes 0.2 s. Source: docs/gguf.md of
ggml-org/ggml, version 3.
"""

import math
import mmap
import struct
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType

_FORMS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}


def read_metadata(file: Path) -> dict[str, object]:
    """Every key with its value: a number, a text, a truth, a tuple of numbers, or for a list of texts its length.

    Raises:
        ValueError: the file is none of this format, or is cut off.
    """
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).metadata()
    except (ValueError, KeyError, OverflowError, struct.error) as error:
        raise ValueError(f"{file.name} is no whole GGUF file ({error}): write it again.") from error


class _Reader:
    def __init__(self, data: mmap.mmap):
        self._data, self._at = data, 0

    def metadata(self) -> dict[str, object]:
        if self._data[:4] != b"GGUF" or not 2 <= (version := self._numbers("4xI")[0]) <= 3:
            raise ValueError("it does not begin like one" if self._data[:4] != b"GGUF" else f"version {version}")
        tensors, keys = self._numbers("QQ")
        found = {}
        for _ in range(keys):
            key = self._text()
            found[key] = self._value(GGUFValueType(*self._numbers("I")))
        ends = [self._tensor_end() for _ in range(tensors)]
        alignment = found.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        end = -(-self._at // alignment) * alignment + max(ends, default=0)
        if end > len(self._data):
            raise ValueError(f"it has {len(self._data)} bytes of {end}")
        return found

    def _numbers(self, form: str) -> tuple:
        numbers = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return numbers

    def _text(self) -> str:
        (length,) = self._numbers("Q")
        return self._numbers(f"{length}s")[0].decode()

    def _value(self, kind: GGUFValueType) -> object:
        if kind == GGUFValueType.STRING:
            return self._text()
        if kind != GGUFValueType.ARRAY:
            return self._numbers(_FORMS[kind])[0]
        of, length = self._numbers("IQ")
        if of != GGUFValueType.STRING:
            return self._numbers(f"{length}{_FORMS[GGUFValueType(of)]}")
        for _ in range(length):
            (size,) = struct.unpack_from("<Q", self._data, self._at)
            self._at += 8 + size
        return length

    def _tensor_end(self) -> int:
        """Offset behind the tensor's last byte, from the beginning of all tensors."""
        self._text()
        (dimensions,) = self._numbers("I")
        shape = self._numbers(f"{dimensions}Q")
        kind, offset = self._numbers("IQ")
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        return offset + math.prod(shape) // block * size
