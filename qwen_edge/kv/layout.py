"""Which cells of a KV cache are held, and where holes are between them.

llama.cpp does not tell, but takes the first cells that are free (llama_kv_cache::find_slot), as is done here. Steps of
two streams leave the cells of both in turns; when one of them ends, the other's lie scattered, and when both have,
nothing does any more.
"""

from __future__ import annotations

import numpy as np


class Layout:
    """Hears of all that happens to `size` cells. Used by the context's thread."""

    def __init__(self, sequences: int, size: int) -> None:
        self._cells = np.zeros((sequences, size), np.int32)  # of every sequence's positions, from 1 on; 0: it has none
        self._holders = np.zeros(size + 1, np.int32)  # how many sequences hold a cell

    @property
    def end(self) -> int:
        """Where the last cell that is held ends."""
        held = np.flatnonzero(self._holders[1:])
        return int(held[-1]) + 1 if held.size else 0

    @property
    def stretches(self) -> int:
        """How many there are of held cells side by side."""
        held = self._holders > 0
        return int(np.count_nonzero(held[1:] & ~held[:-1]))

    def fill(self, sequence: int, start: int, end: int) -> None:
        """New cells hold the sequence's positions from `start` to before `end`."""
        self.drop(sequence, start, end)
        free = np.flatnonzero(self._holders[1:] == 0)[: end - start] + 1
        self._cells[sequence, start:end] = free
        self._holders[free] = 1

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """The target holds these cells of the source as well, instead of its own. -1: to the end."""
        self.drop(target, start, end)
        positions = slice(start, end if end >= 0 else None)
        cells = self._cells[source, positions]
        self._cells[target, positions] = cells
        self._holders[cells[cells > 0]] += 1

    def drop(self, sequence: int, start: int, end: int) -> None:
        """The sequence holds these cells no more. -1: to the end."""
        cells = self._cells[sequence, start : end if end >= 0 else None]
        self._holders[cells[cells > 0]] -= 1
        cells[:] = 0

    def close_up(self) -> None:
        """All that is held has been moved together, in the order in which it lay."""
        held = self._holders > 0
        self._cells = np.where(held, np.cumsum(held), 0).astype(np.int32)[self._cells]
        holders = self._holders[held]
        self._holders[:] = 0
        self._holders[1 : 1 + holders.size] = holders
