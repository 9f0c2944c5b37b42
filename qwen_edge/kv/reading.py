"""A file of cells that a thread reads while the engine continues."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from pathlib import Path

from qwen_edge.kv.host_tier import Copy

Room = Callable[[int], memoryview]
ReadFile = Callable[[Path, Room], memoryview]  # raises OSError, and ValueError for what is damaged


class Read:
    """One file being read, into memory that belongs to this read until it is `over`. Used by the engine's thread."""

    def __init__(
        self, reader: Executor, read: ReadFile, copy: Copy, room: Room, written: Future[None] | None = None
    ) -> None:
        """`written`: the job that is still writing the file, if there is one; the reader's thread waits for it."""
        self.copy = copy
        self._given_up = False
        self._job = reader.submit(_read, read, copy.cells, room, written)

    @property
    def done(self) -> bool:
        """Whether the file has been read, or reading has failed."""
        return self._job.done()

    @property
    def over(self) -> bool:
        """Whether another read may use the memory: a thread that hangs still writes to it."""
        return self._given_up and self._job.done()

    def wait(self, seconds: float) -> None:
        """Wait until the read is done, but no longer than `seconds`."""
        wait([self._job], seconds)

    def cells(self) -> memoryview:
        """The cells, when the read is done and until it is given up. Raises OSError, and ValueError for damage."""
        return self._job.result()

    def give_up(self) -> None:
        """The cells are loaded into the cache, or nobody wants them any more."""
        self._given_up = True
        self._job.cancel()


def _read(read: ReadFile, file: Path, room: Room, written: Future[None] | None) -> memoryview:
    if written:
        wait([written])
    return read(file, room)
