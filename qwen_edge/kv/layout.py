"""Which cells of a KV cache are held, and where the holes between them are.

llama.cpp does not tell, but always takes the first free cells (llama_kv_cache::find_slot), and so does `Layout`. While
two streams run, their cells alternate; when one of them ends, the cells of the other one are scattered among holes.
"""

from __future__ import annotations

import numpy as np


class Layout:
    """A record of `size` cells, which must be told of every change. Used by the context's thread."""

    def __init__(self, sequences: int, size: int) -> None:
        self._cells = np.zeros((sequences, size), np.int32)  # cell of each position, counted from 1; 0: none
        self._holders = np.zeros(size + 1, np.int32)  # how many sequences hold a cell

    @property
    def end(self) -> int:
        """Where the last held cell ends."""
        held = np.flatnonzero(self._holders[1:])
        return int(held[-1]) + 1 if held.size else 0

    @property
    def stretches(self) -> int:
        """How many groups of adjacent held cells there are."""
        held = self._holders > 0
        return int(np.count_nonzero(held[1:] & ~held[:-1]))

    def fill(self, sequence: int, start: int, end: int) -> None:
        """New cells hold the sequence's positions from `start` to before `end`."""
        self.drop(sequence, start, end)
        free = np.flatnonzero(self._holders[1:] == 0)[: end - start] + 1
        self._cells[sequence, start:end] = free
        self._holders[free] = 1

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """The target holds these cells of the source as well, instead of its own. `end` -1: to the last."""
        self.drop(target, start, end)
        positions = slice(start, end if end >= 0 else None)
        cells = self._cells[source, positions]
        self._cells[target, positions] = cells
        self._holders[cells[cells > 0]] += 1

    def drop(self, sequence: int, start: int, end: int) -> None:
        """The sequence holds these cells no more. `end` -1: to the last."""
        cells = self._cells[sequence, start : end if end >= 0 else None]
        self._holders[cells[cells > 0]] -= 1
        cells[:] = 0

    def close_up(self) -> None:
        """All held cells have been moved together, in their order."""
        held = self._holders > 0
        self._cells = np.where(held, np.cumsum(held), 0).astype(np.int32)[self._cells]
        holders = self._holders[held]
        self._holders[:] = 0
        self._holders[1 : 1 + holders.size] = holders
