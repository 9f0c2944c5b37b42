"""Turns large allocations into pages of 2 MiB, a piece at a time, while the engine has nothing else to do.

Every token reads all the weights and, of a KV cache without flash attention, many short pieces far apart: with pages of
4 KiB, looking up addresses takes a twentieth of the time. Huge pages from the allocation on would delay the start (by a
second, on a virtual machine whose host has taken the memory back).

From Linux 6.1 on (MADV_COLLAPSE, madvise(2)); on older kernels, the kernel's own thread collapses pages, slowly.
Nothing is done where the administrator has switched huge pages off.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from pathlib import Path

_HUGE = 2 << 20
_PIECE = 2 * _HUGE  # up to 10 ms in a virtual machine: a request that comes meanwhile waits no longer
_LARGE = 16 * _PIECE  # smaller allocations are not worth it
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25


def madvise(address: int, length: int, advice: int) -> int:
    """The system call; returns 0 or an error number."""
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), advice)
    return ctypes.get_errno() if failed else 0


class HugePages:
    """`scan` for allocations that are new, then `step` until it returns False. Used by the engine's thread."""

    def __init__(self, root: Path = Path("/"), advise: Callable[[int, int, int], int] = madvise) -> None:
        self._maps = root / "proc/self/maps"
        self._setting = root / "sys/kernel/mm/transparent_hugepage/enabled"
        self._advise = advise
        self._seen: set[tuple[int, int]] = set()
        self._pieces: deque[tuple[int, int]] = deque()

    def scan(self) -> None:
        """Take note of the large anonymous mappings that were not there before."""
        try:
            if "[never]" in self._setting.read_text():
                return
            found = {mapping for line in self._maps.read_text().splitlines() if (mapping := _large_anonymous(line))}
        except OSError:  # not Linux, or a kernel without huge pages
            return
        for begin, end in sorted(found - self._seen):
            self._advise(begin, end - begin, _MADV_HUGEPAGE)
            self._pieces.extend((at, min(_PIECE, end - at)) for at in range(begin, end, _PIECE))
        self._seen = found

    def step(self) -> bool:
        """Collapse one piece; False if none is left. A piece that cannot be collapsed (no memory, nothing in it yet, an
        older kernel, which refuses at once) stays as it is: the kernel's own thread has its turn after `scan`."""
        if not self._pieces:
            return False
        self._advise(*self._pieces.popleft(), _MADV_COLLAPSE)
        return True


def _large_anonymous(line: str) -> tuple[int, int] | None:
    """The whole huge pages of a line of /proc/self/maps, if they are many and belong to no file."""
    addresses, access, _offset, _device, inode, *_name = line.split()
    begin, end = (int(address, 16) for address in addresses.split("-"))
    begin, end = -(-begin // _HUGE) * _HUGE, end // _HUGE * _HUGE
    return (begin, end) if access.startswith("rw") and inode == "0" and end - begin >= _LARGE else None
