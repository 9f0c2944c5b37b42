"""The tensor table of a GGUF file, read from its header alone.

gguf's own reader makes a Python object of each of 300,000 vocabulary strings; this one skips them. Every length in the
file is compared with the file's size before use, so that any file is read in bounded time and memory.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType

from qwen_edge.core.errors import ConversionError
from qwen_edge.llama.header import HEADER, what_is_wrong

_STRING, _ARRAY, _UINT32 = 8, 9, 4
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = "general.alignment"
_MOST_DIMENSIONS = 4
_LONGEST_NAME = 65_536  # bytes of a key or of a tensor's name
_MOST_STRINGS = 10_000_000  # in an array: twenty times the largest vocabularies


@dataclass(frozen=True)
class TableRow:
    """`shape` as in GGUF, row length first; `end`: the end of the tensor's bytes, relative to the start of the data."""

    name: str
    type: str
    shape: tuple[int, ...]
    end: int


def read_tensor_table(file: Path) -> list[TableRow]:
    """Raises ConversionError if the file is not a GGUF file or ends before its last tensor."""
    if wrong := what_is_wrong(file):
        raise ConversionError(f"{file} is not a whole GGUF file: it {wrong}. Make it again: qwen-edge convert")
    try:
        with file.open("rb") as stream:
            size = file.stat().st_size
            rows, data = _Header(stream, size).read()
    except (struct.error, KeyError, ValueError, EOFError):
        raise ConversionError(f"{file} is not a whole GGUF file. Make it again: qwen-edge convert") from None
    except OSError as error:
        raise ConversionError(f"{file} cannot be read: {error.strerror or error}.") from None
    missing = data + max(row.end for row in rows) - size
    if missing > 0:
        raise ConversionError(f"{file} is cut short: {missing:,} bytes are missing. Make it again: qwen-edge convert")
    return rows


class _Header:
    """Reads the header once. Raises EOFError, struct.error, KeyError or ValueError if it is not a GGUF header."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size

    def read(self) -> tuple[list[TableRow], int]:
        """The tensors, and the offset of their data."""
        _, _, tensors, keys = self._unpack(HEADER)
        alignment = GGUF_DEFAULT_ALIGNMENT
        for _ in range(keys):
            name, (kind,) = self._name(), self._unpack("<I")
            if name == _ALIGNMENT and kind == _UINT32:
                (alignment,) = self._unpack("<I")
            else:
                self._skip(kind)
        if not alignment or alignment & (alignment - 1):
            raise ValueError
        rows = [self._row() for _ in range(tensors)]
        return rows, -(-self._stream.tell() // alignment) * alignment

    def _row(self) -> TableRow:
        name, (dimensions,) = self._name(), self._unpack("<I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError
        shape = self._unpack(f"<{dimensions}Q")
        number, offset = self._unpack("<IQ")
        kind = GGMLQuantizationType(number)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        return TableRow(name, kind.name, shape, offset + math.prod(shape) // block * block_bytes)

    def _skip(self, kind: int) -> None:
        """Skip one value of this type."""
        if kind == _STRING:
            self._pass(self._unpack("<Q")[0])
        elif kind == _ARRAY:
            item, count = self._unpack("<IQ")
            if item == _STRING and count <= _MOST_STRINGS:
                for _ in range(count):
                    self._pass(*_LENGTH.unpack(self._stream.read(8)))
            else:  # llama.cpp does not accept arrays of arrays either
                self._pass(_SCALAR_BYTES[item] * count)
        else:
            self._pass(_SCALAR_BYTES[kind])

    def _name(self) -> str:
        (length,) = self._unpack("<Q")
        if length > _LONGEST_NAME:
            raise ValueError
        return self._stream.read(length).decode("utf-8")

    def _pass(self, count: int) -> None:
        if count > self._size:  # seeking past the end of the file makes the next read fail
            raise EOFError
        self._stream.seek(count, 1)

    def _unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._stream.read(struct.calcsize(form)))
