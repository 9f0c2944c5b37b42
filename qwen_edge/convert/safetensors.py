"""The safetensors format: the tensors of a file and the position of their bytes.

Headers are checked before use, so that a truncated or damaged download is reported as such.
Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header length, JSON, raw data).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from qwen_edge.convert.diagnose import refuse_other_content
from qwen_edge.core.errors import ConversionError
from qwen_edge.llama.header import TELLING

BYTES_PER_ELEMENT = {"BF16": 2, "F16": 2, "F32": 4}
_LARGEST_HEADER = 100 << 20  # bytes; the limit of the format
_PIECE = 4 << 20


@dataclass(frozen=True)
class Tensor:
    """One tensor in a file: `shape` as in PyTorch (rows first), `offset` in bytes from the file's start. `spans`:
    offset and bytes of each part, if it is not in one piece (`take_rows`)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


_Natural = Annotated[int, msgspec.Meta(ge=0)]


class _Entry(msgspec.Struct):
    dtype: str
    shape: tuple[_Natural, ...]
    data_offsets: tuple[_Natural, _Natural]


def read_header(file: Path) -> dict[str, Tensor]:
    """The tensors of one file, sorted by name, as in the safetensors library.

    Raises ConversionError for a file that is not in this format, is truncated, or has an inconsistent header.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        refuse_other_content(file, stream.read(TELLING))
        stream.seek(0)
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > _LARGEST_HEADER:
            raise _damaged(file, "it does not begin with a safetensors header")
        if 8 + length > size:
            raise _damaged(file, f"by its first bytes its header has {length} bytes, but the whole file only {size}")
        try:
            raw = msgspec.json.decode(stream.read(length), type=dict[str, msgspec.Raw])
            raw.pop("__metadata__", None)
            entries = {name: msgspec.json.decode(entry, type=_Entry) for name, entry in raw.items()}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _damaged(file, f"its header does not follow the format ({error})") from None
    tensors = {name: _tensor(file, name, entries[name], 8 + length) for name in sorted(entries)}
    _check_layout(file, tensors, size)
    return tensors


def read_pieces(tensor: Tensor) -> Iterator[memoryview]:
    """The tensor's bytes, in pieces of 4 MiB in one buffer: a piece is valid until the next one is requested."""
    buffer = memoryview(bytearray(min(_PIECE, tensor.nbytes)))
    filled = 0
    with tensor.file.open("rb") as stream:
        for offset, nbytes in tensor.spans or [(tensor.offset, tensor.nbytes)]:
            stream.seek(offset)
            end = offset + nbytes
            while stream.tell() < end:
                part = buffer[filled : filled + end - stream.tell()]
                if stream.readinto(part) != len(part):
                    raise ConversionError(f"{tensor.file} was truncated while it was read. Start again.")
                filled += len(part)
                if filled == len(buffer):
                    yield buffer
                    filled = 0
    if filled:
        yield buffer[:filled]


def take_rows(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """The tensor with these rows only, in ascending order."""
    width = tensor.nbytes // tensor.shape[0]
    runs: list[tuple[int, int]] = []  # first row, and the row after the last
    for row in rows:
        if runs and runs[-1][1] == row:
            runs[-1] = (runs[-1][0], row + 1)
        else:
            runs.append((row, row + 1))
    spans = tuple((tensor.offset + first * width, (end - first) * width) for first, end in runs)
    shape = (len(rows), *tensor.shape[1:])
    return dataclasses.replace(tensor, shape=shape, nbytes=len(rows) * width, spans=spans)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same type, shape and bytes."""
    return (one.dtype, one.shape) == (other.dtype, other.shape) and all(
        a == b for a, b in zip(read_pieces(one), read_pieces(other), strict=True)
    )


def _tensor(file: Path, name: str, entry: _Entry, data_start: int) -> Tensor:
    if entry.dtype not in BYTES_PER_ELEMENT:
        raise ConversionError(
            f"{file}: tensor {name!r} is {entry.dtype}; only {', '.join(BYTES_PER_ELEMENT)} can be converted. "
            "Use the original, unquantized checkpoint."
        )
    begin, end = entry.data_offsets
    tensor = Tensor(name, entry.dtype, entry.shape, file, data_start + begin, end - begin)
    if tensor.nbytes != tensor.elements * BYTES_PER_ELEMENT[entry.dtype]:
        raise _damaged(file, f"tensor {name!r} of shape {list(entry.shape)} cannot take {tensor.nbytes} bytes")
    return tensor


def _check_layout(file: Path, tensors: dict[str, Tensor], size: int) -> None:
    """Check that tensors neither overlap nor leave gaps, and that the file has the length its header implies."""
    end = None
    for tensor in sorted(tensors.values(), key=lambda t: t.offset):
        if end is not None and tensor.offset != end:
            raise _damaged(file, f"the bytes of tensor {tensor.name!r} do not begin where the tensor before ends")
        end = tensor.offset + tensor.nbytes
    if end is not None and end > size:
        raise _damaged(file, f"it is cut short: {end - size:,} of {end:,} bytes are missing")
    if end is not None and end < size:
        raise _damaged(file, f"it holds {size - end:,} bytes more than its header says")


def _damaged(file: Path, what: str) -> ConversionError:
    return ConversionError(f"{file} is damaged: {what}. Delete it and download it again.")
