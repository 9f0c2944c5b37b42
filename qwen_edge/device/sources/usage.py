"""Processor load and memory in use: /proc/stat and /proc/meminfo (Documentation/filesystems/proc.rst in the kernel's
sources)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwen_edge.device.sources.files import read_word

_IDLE = (3, 4)  # columns: idle, and waiting for a disk
_GUEST = 8  # from this column on, the times are contained in earlier columns


class ProcessorLoad:
    """The load of all cores together, between two calls of `read`."""

    def __init__(self, root: Path) -> None:
        self._file = root / "proc/stat"
        self._before = self._ticks()

    def read(self) -> float | None:
        """The load (0..1) since the last call; None if it cannot be read, or no time has passed."""
        before, self._before = self._before, self._ticks()
        return busy_share(before, self._before)

    def _ticks(self) -> list[int]:
        label, *columns = read_word(self._file).partition("\n")[0].split() or [""]
        try:
            return [int(column) for column in columns] if label == "cpu" else []
        except ValueError:
            return []


def busy_share(before: Sequence[int], after: Sequence[int]) -> float | None:
    """The share of busy time between two lines of /proc/stat. A counter may decrease a little when a core goes offline
    (proc(5), iowait)."""
    spent = [max(0, late - early) for early, late in zip(before, after, strict=False)][:_GUEST]
    if len(spent) <= max(_IDLE) or not sum(spent):
        return None
    return 1 - sum(spent[column] for column in _IDLE) / sum(spent)


def memory_bytes(root: Path) -> tuple[int, int] | tuple[None, None]:
    """Bytes in use, and in total; the page cache counts as free."""
    sizes = {}
    for line in read_word(root / "proc/meminfo").splitlines():
        name, _, size = line.partition(":")
        if (number := size.split()[:1]) and number[0].isdecimal():
            sizes[name] = 1024 * int(number[0])
    total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    return (max(0, total - free), total) if total is not None and free is not None else (None, None)
