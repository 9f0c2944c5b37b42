"""The model's file, mapped for reading: whether it is still the file that was loaded, and whether it is in memory."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from qwen_edge.device.host.memory import available_bytes
from qwen_edge.llama.gguf_header import Place

_SPARE_BYTES = 64 << 20  # of the available memory that reading ahead leaves free

Identity = tuple[int, int]
"""Size, and time of the last change in nanoseconds, of a file."""


def mincore(address: int, size: int, seen: int) -> int:
    """The system call; `seen` is the address of a byte for each page. Returns 0, or -1 for an error."""
    call = ctypes.CDLL(None).mincore
    return int(call(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_void_p(seen)))


def identity_of(path: Path) -> Identity:
    """Raises OSError."""
    return _identity(path.stat())


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
        """Whether nobody has written to the file since it was loaded. A file that was replaced by a rename counts as it
        was: the mapping keeps the old one."""
        return _identity(os.fstat(self._file)) == self._loaded

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
                offset, length = start * mmap.PAGESIZE, (end - start) * mmap.PAGESIZE
                os.posix_fadvise(self._file, offset, length, os.POSIX_FADV_WILLNEED)


def _identity(status: os.stat_result) -> Identity:
    return status.st_size, status.st_mtime_ns


def _resident(address: int, size: int) -> Any:
    """Which pages of a mapped file are in memory, a bool for each. All of them if the system does not say, or if this
    user may not write to the file (mincore(2))."""
    seen = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    return np.ones(seen.size, bool) if mincore(address, size, seen.ctypes.data) else (seen & 1).astype(bool)
