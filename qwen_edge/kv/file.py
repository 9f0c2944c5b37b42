"""The file format of a stretch of cells: mark, length of the head, head (msgpack), checksum of the head, cells."""

from __future__ import annotations

import os
import re
import secrets
import struct
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from qwen_edge.core import atomic_file
from qwen_edge.kv.folder import open_ours

_NAME = re.compile(r"[0-9a-f]{32}\.kv(\.new)?")  # of a file, and of its draft
_MARK = b"qwen-kv\1"  # the last byte is the version of the format
_LENGTH = struct.Struct("<8sI")
_CHECKSUM = 16  # bytes of a 128-bit XXH3: finds damage as fast as memory is read; protects against no attacker
_AROUND = 256  # bytes, at most, of the mark, the checksum, and the head without its texts
_LONGEST = 1 << 24  # bytes of a head


class Head(msgspec.Struct, frozen=True):
    """`tokens` are all tokens from the beginning of the prompt, four bytes each. The file has the cells of those from
    position `start` on, in `size` bytes, with this `checksum`. `owner` is the name of the API key that sent the tokens;
    empty where there were no keys."""

    fingerprint: str
    start: int
    tokens: bytes
    hits: int
    size: int
    checksum: bytes = b""
    owner: str = ""

    @property
    def file_bytes(self) -> int:
        """An upper limit of the size of the file."""
        return self.size + len(self.tokens) + len(self.fingerprint) + len(self.owner.encode()) + _AROUND

    @property
    def name(self) -> str:
        """The file's name: the same for the same stretch of the same owner, computed under the same fingerprint."""
        key = xxhash.xxh3_128(f"{self.fingerprint}\n{self.owner}".removesuffix("\n").encode())
        key.update(struct.pack("<q", self.start) + self.tokens)
        return f"{key.hexdigest()}.kv"


def write(file: Path, head: Head, cells: Any) -> None:
    """Write a whole file, so that no power cut leaves half of one. Raises OSError, also where somebody else's file has
    the same name."""
    body = memoryview(cells).cast("B")
    head = msgspec.structs.replace(head, checksum=xxhash.xxh3_128_digest(body))
    encoded = msgspec.msgpack.encode(head)
    if os.path.lexists(file) and not is_ours(file):
        raise OSError(f"{file} is in the way, and not a file of qwen-edge: move it to another folder")
    draft = f"{secrets.token_hex(16)}.kv.new"  # a name that no other file has, and that `is_ours` knows
    with atomic_file.replacing(file, private=True, durable=True, draft=draft) as out:
        out.write(_LENGTH.pack(_MARK, len(encoded)) + encoded + xxhash.xxh3_128_digest(encoded))
        # after a power cut the draft begins with the mark, so that the next start recognises and deletes it
        atomic_file.sync_written(out)
        out.write(body)


def is_ours(file: Path) -> bool:
    """Whether qwen-edge has written a file, or the draft of one: its name has our form, and it begins with our mark. A
    file whose mark is damaged does not count, as it may be anybody's. Raises OSError."""
    if not _NAME.fullmatch(file.name):
        return False
    with open_ours(file) as source:
        return source.read(len(_MARK)) == _MARK


def read_head(file: Path) -> Head:
    """The head of a file. Raises OSError, and ValueError for a file of another format or an incomplete one."""
    with open_ours(file) as source:
        head = _head(source)
        if os.fstat(source.fileno()).st_size != source.tell() + head.size:
            raise ValueError("its length is wrong")
        if head.name != file.name:
            raise ValueError("its name is not that of its content")
    return head


def read_cells(file: Path, room: Callable[[int], memoryview]) -> memoryview:
    """The cells of a file, in memory that `room` provides. Raises OSError, and ValueError for damaged cells."""
    with open_ours(file) as source:
        head = _head(source)
        if os.fstat(source.fileno()).st_size != source.tell() + head.size:
            raise ValueError("its length is wrong")
        cells, read = room(head.size), 0
        while read < head.size and (count := source.readinto(cells[read:])):
            read += count
    if read != head.size or xxhash.xxh3_128_digest(cells) != head.checksum:
        raise ValueError("it is damaged")
    return cells


def _head(source: FileIO) -> Head:
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
        head = msgspec.msgpack.decode(encoded, type=Head)
    except (msgspec.MsgspecError, ValueError):
        raise ValueError("it was written by another version") from None
    if not 0 <= head.start < len(head.tokens) // 4 or len(head.tokens) % 4 or head.size < 0:
        raise ValueError("it is damaged")
    return head
