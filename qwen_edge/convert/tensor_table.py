"""The tensor table of a GGUF file, read from its header alone.

gguf's own reader makes a Python object of every one of 300,000 vocabulary strings; here they are stepped over.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGUF_MAGIC, GGMLQuantizationType

from qwen_edge.errors import ConversionError

_STRING, _ARRAY = 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


@dataclass(frozen=True)
class TableRow:
    """`shape` as GGUF has it, row length first; `end` is where the tensor's bytes end, from the start of the data."""

    name: str
    type: str
    shape: tuple[int, ...]
    end: int


def read_tensor_table(file: Path) -> list[TableRow]:
    """Raises ConversionError if the file is not a GGUF file or ends before its last tensor does."""
    with file.open("rb") as stream:
        try:
            rows = _read(stream)
        except (struct.error, KeyError, ValueError, UnicodeDecodeError):
            raise ConversionError(f"{file} is not a whole GGUF file. Make it again: qwen-edge convert") from None
        header = stream.tell()
    data = math.ceil(header / GGUF_DEFAULT_ALIGNMENT) * GGUF_DEFAULT_ALIGNMENT
    missing = data + max(row.end for row in rows) - file.stat().st_size
    if missing > 0:
        raise ConversionError(f"{file} is cut short: {missing:,} bytes are missing. Make it again: qwen-edge convert")
    return rows


def _read(stream: BinaryIO) -> list[TableRow]:
    magic, version, tensors, keys = _unpack(stream, "<IIQQ")
    if magic != GGUF_MAGIC or version != 3 or not tensors:
        raise ValueError
    for _ in range(keys):
        _text(stream)
        _skip(stream, _unpack(stream, "<I")[0])
    return [_row(stream) for _ in range(tensors)]


def _row(stream: BinaryIO) -> TableRow:
    name = _text(stream)
    shape = _unpack(stream, f"<{_unpack(stream, '<I')[0]}Q")
    kind = GGMLQuantizationType(_unpack(stream, "<I")[0])
    (offset,) = _unpack(stream, "<Q")
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return TableRow(name, kind.name, shape, offset + math.prod(shape) // block * block_bytes)


def _skip(stream: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        stream.seek(_unpack(stream, "<Q")[0], 1)
    elif kind == _ARRAY:
        item, count = _unpack(stream, "<IQ")
        if item in _SCALAR_BYTES:
            stream.seek(_SCALAR_BYTES[item] * count, 1)
        else:
            for _ in range(count):
                _skip(stream, item)
    else:
        stream.seek(_SCALAR_BYTES[kind], 1)


def _text(stream: BinaryIO) -> str:
    return stream.read(_unpack(stream, "<Q")[0]).decode("utf-8")


def _unpack(stream: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, stream.read(struct.calcsize(form)))
