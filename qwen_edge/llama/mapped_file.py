"""The model's file, mapped for reading: whether it is still the file that was loaded, and whether it is in memory."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qwen_edge.device.host.memory import available_bytes
from qwen_edge.llama.gguf_header import Place

_SPARE_BYTES = 64 << 20  # of the available memory that reading ahead leaves free
_PIECE = 1 << 20  # bytes to read at once: posix_fadvise would read no more than the device's read-ahead of each part


@dataclass(frozen=True)
class Identity:
    """A file's size, and when its content and its description were last changed, in nanoseconds."""

    size: int
    written: int
    described: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def mincore(address: int, size: int, seen: int) -> int:
    """The system call; `seen` is the address of a byte for each page. Returns 0, or -1 for an error."""
    call = ctypes.CDLL(None).mincore
    return int(call(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_void_p(seen)))


def identity_of(path: Path) -> Identity:
    """Raises OSError."""
    return Identity.of(path.stat())


class MappedFile:
    """Pages of the mapping are the system's page cache: memory that the system takes back when it is short. Used by one
    thread, which starts another one to read ahead."""

    def __init__(self, path: Path, loaded: Identity, places: Iterable[Place]) -> None:
        """`loaded`: the identity of the file before it was loaded. `places`: the parts that will be read. Raises
        OSError."""
        with path.open("rb") as file:
            self._mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
            self._file = os.dup(file.fileno())
        self._loaded = loaded
        self.address: int = np.frombuffer(self._mapping, np.uint8).ctypes.data
        self._pages = np.zeros(-(-self.size // mmap.PAGESIZE), bool)  # those that will be read
        for place in places:
            self._pages[place.start // mmap.PAGESIZE : -(-(place.start + place.size) // mmap.PAGESIZE)] = True
        self._reading: threading.Thread | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._mapping)

    @property
    def is_as_loaded(self) -> bool:
        """Whether nobody can have written to the file since it was loaded. Programs that write in place may restore the
        time of the content, so the description must not have changed either; except that the file was deleted, or
        replaced by a rename: the mapping keeps the old one."""
        status = os.fstat(self._file)
        now = Identity.of(status)
        same = (now.size, now.written) == (self._loaded.size, self._loaded.written)
        return same and (status.st_nlink == 0 or now.described == self._loaded.described)

    @property
    def is_in_memory(self) -> bool:
        """Whether all pages that will be read are in memory. Takes 5 ms for 400 MB."""
        return not (self._pages & ~_resident(self.address, self.size)).any()

    def read_ahead(self) -> None:
        """Have the pages that will be read brought into memory in the background, if there is memory for them."""
        size = int(np.count_nonzero(self._pages)) * mmap.PAGESIZE
        if (self._reading and self._reading.is_alive()) or available_bytes() < size + _SPARE_BYTES:
            return
        self._reading = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        self._reading.start()

    def close(self) -> None:
        """Call nothing afterwards. Waits for the reading."""
        if self._reading:
            self._reading.join()
        with contextlib.suppress(BufferError):  # unmapped when the last array over it is gone
            self._mapping.close()
        os.close(self._file)

    def _read(self) -> None:
        edges = np.flatnonzero(np.diff(np.concatenate(([False], self._pages, [False])).astype(np.int8)))
        with contextlib.suppress(OSError):
            for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                for offset in range(start * mmap.PAGESIZE, end * mmap.PAGESIZE, _PIECE):
                    os.pread(self._file, min(_PIECE, end * mmap.PAGESIZE - offset), offset)


def _resident(address: int, size: int) -> Any:
    """Which pages of a mapped file are in memory, a bool for each. All of them if the system does not say, or if this
    user may not write to the file (mincore(2))."""
    seen = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    return np.ones(seen.size, bool) if mincore(address, size, seen.ctypes.data) else (seen & 1).astype(bool)
