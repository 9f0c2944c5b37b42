"""A stretch of cells in a file: a mark, the length of the head, the head (msgpack), its checksum, and the cells."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec
import xxhash

_MARK = b"qwen-kv\1"
_LENGTH = struct.Struct("<8sI")
_CHECKSUM = 16  # bytes of XXH3 with 128 bits: it finds damage, as fast as memory is read; it is no secret
_AROUND = 256  # bytes of the head beside its texts, the mark and the checksum
_LONGEST = 1 << 24  # bytes of a head


class Head(msgspec.Struct, frozen=True):
    """`tokens` are all from the beginning, four bytes each; the cells are of those behind the first `start`, `size`
    bytes in all. `checksum` is that of the cells."""

    fingerprint: str
    start: int
    tokens: bytes
    hits: int
    size: int
    checksum: bytes = b""

    @property
    def file_bytes(self) -> int:
        """The file is no larger than this."""
        return self.size + len(self.tokens) + len(self.fingerprint) + _AROUND

    @property
    def name(self) -> str:
        """Of the file: the same stretch, computed with the same, has one."""
        key = xxhash.xxh3_128(self.fingerprint.encode())
        key.update(struct.pack("<q", self.start) + self.tokens)
        return f"{key.hexdigest()}.kv"


def write(file: Path, head: Head, cells: Any) -> None:
    """Put a whole file there, so that no power cut leaves half of one. Raises OSError."""
    body = memoryview(cells).cast("B")
    head = msgspec.structs.replace(head, checksum=xxhash.xxh3_128_digest(body))
    encoded = msgspec.msgpack.encode(head)
    draft = file.with_suffix(".kv.new")
    try:
        with open(draft, "wb", opener=_private) as out:
            out.write(_LENGTH.pack(_MARK, len(encoded)) + encoded + xxhash.xxh3_128_digest(encoded))
            out.write(body)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
        _sync_folder(file.parent)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def read_head(file: Path) -> Head:
    """Raises OSError, and ValueError for what is no such file, or not a whole one."""
    with file.open("rb") as source:
        head = _head(source)
        if os.fstat(source.fileno()).st_size != source.tell() + head.size:
            raise ValueError("its length is wrong")
        if head.name != file.name:
            raise ValueError("it has another's name")
    return head


def read_cells(file: Path, room: Callable[[int], memoryview]) -> memoryview:
    """The cells, in so much room as is asked for. Raises OSError, and ValueError for cells that are damaged."""
    with file.open("rb", buffering=0) as source:
        head = _head(source)
        cells, read = room(head.size), 0
        while count := source.readinto(cells[read:]):
            read += count
    if read != head.size or xxhash.xxh3_128_digest(cells) != head.checksum:
        raise ValueError("it is damaged")
    return cells


def _head(source: IO[bytes]) -> Head:
    start = source.read(_LENGTH.size)
    if len(start) != _LENGTH.size or not start.startswith(_MARK):
        raise ValueError("it is not a file of cells")
    length = _LENGTH.unpack(start)[1]
    if length > _LONGEST:
        raise ValueError("it is damaged")
    encoded, checksum = source.read(length), source.read(_CHECKSUM)
    if xxhash.xxh3_128_digest(encoded) != checksum:
        raise ValueError("it is damaged")
    try:
        return msgspec.msgpack.decode(encoded, type=Head)
    except msgspec.MsgspecError:
        raise ValueError("it was written by another version") from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    """A rename is kept over a power cut once the folder is written."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
