"""A file of cells that a thread reads, while the engine goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from pathlib import Path

from qwen_edge.kv.host_tier import Copy

Room = Callable[[int], memoryview]
ReadFile = Callable[[Path, Room], memoryview]  # raises OSError, and ValueError for what is damaged


class Read:
    """One file at a time is read, into memory that belongs to it until it is `over`. Used by the engine's thread."""

    def __init__(
        self, reader: Executor, read: ReadFile, copy: Copy, room: Room, written: Future[None] | None = None
    ) -> None:
        """It may be `written` just now: that is waited for, in the reader's thread."""
        self.copy = copy
        self._given_up = False
        self._job = reader.submit(_read, read, copy.cells, room, written)

    @property
    def done(self) -> bool:
        """Whether it has been read, or failed."""
        return self._job.done()

    @property
    def over(self) -> bool:
        """Whether its memory may be used by another: a thread that hangs in a read has it still."""
        return self._given_up and self._job.done()

    def wait(self, seconds: float) -> None:
        """Until it is done, or so long."""
        wait([self._job], seconds)

    def cells(self) -> memoryview:
        """When it is done: what was read, until it is given up. Raises OSError, and ValueError for damage."""
        return self._job.result()

    def give_up(self) -> None:
        """What was read is loaded, or nobody wants it any more."""
        self._given_up = True
        self._job.cancel()


def _read(read: ReadFile, file: Path, room: Room, written: Future[None] | None) -> memoryview:
    if written:
        wait([written])
    return read(file, room)
