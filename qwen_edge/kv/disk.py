"""What is remembered beyond the life of the engine: copies of cells in files, a stretch of tokens each.

A file is written beside the work, to its end, and then renamed: it is whole or not there. It says what its cells were
computed with (the fingerprint) and holds their checksum: what does not fit or is damaged is a line in the log, and no
memory. There is never more of it than asked for, nor is more written in a day: flash memory wears.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO

from qwen_edge.kv.budget import Budget
from qwen_edge.kv.file import Head, read_cells, read_head, write
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.stash import Copy, Stash

log = logging.getLogger(__name__)

_PAUSE = 600.0  # seconds without another try where a file could not be written
_SPACE = 64 << 20  # bytes that are left free for others


class Disk:
    """Files of one folder, which nobody else uses meanwhile. Called by the engine's thread; one of its own writes."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        *,
        limit: int,
        per_day: int,
        cell: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Files of up to `limit` bytes in all are kept, and so many written `per_day`; a cell has about `cell` bytes.
        What was computed with another fingerprint is not used, and goes first. Raises OSError for a folder that cannot
        be used."""
        self._folder = folder
        self._fingerprint = fingerprint
        self._limit = limit
        self._clock = clock
        self._bytes: dict[Path, int] = {}
        self._buffer = bytearray()  # memory that has been used before is quicker
        self._foreign: list[Path] = []  # of another model, say; those used last at the end
        self._writer = ThreadPoolExecutor(1, "disk")
        self._writing: tuple[Future[None], Copy] | None = None
        self._paused_until = 0.0
        _make_private(folder)
        self._lock = _locked(folder)
        self._budget = Budget(folder / "written.json", per_day, clock)
        self.pins = Pins(folder / "pins.json", clock)
        self._index = Stash(limit // cell, self.pins)
        self._scan()

    @property
    def ready(self) -> bool:
        """Whether a copy can be taken now: the last one has been written, and more may be."""
        self._settle()
        return self._writing is None and self._budget.left > 0 and self._clock() >= self._paused_until

    @property
    def busy(self) -> bool:
        """Whether a file is being written."""
        self._settle()
        return self._writing is not None

    def wanted(self, tokens: Sequence[int], start: int) -> int:
        """How many tokens behind `start` are not in a file yet, and should be."""
        return self._index.wanted(tokens, start)

    def put(self, copy: Copy) -> None:
        """Write a copy that was wanted, when `ready`. The cells are read later, and must not change."""
        assert self._writing is None
        tokens = array("i", copy.tokens).tobytes()
        size = len(memoryview(copy.cells).cast("B"))
        head = Head(self._fingerprint, copy.start, tokens, copy.hits, size)
        file = self._folder / head.name
        kept = Copy(copy.tokens, copy.start, file, copy.hits)
        gone = [old.cells for old in self._index.put(kept) if old.cells != file]
        their_bytes = sum(self._bytes.pop(old) for old in gone)
        self._bytes[file] = head.file_bytes
        surplus = self._surplus(kept)
        # a power cut meanwhile leaves what this one is instead of, if there is room for both
        both = sum(self._bytes.values()) + their_bytes <= self._limit
        before, after = (surplus, gone) if both else ([*surplus, *gone], [])
        self._budget.spend(head.file_bytes)
        self._writing = self._writer.submit(_replace, file, head, copy.cells, before, after), kept

    def find(self, tokens: Sequence[int], held: int) -> tuple[Copy, int] | None:
        """The copy that leads farthest beyond the first `held` of these tokens, with its cells, and how far. The cells
        are there until the next call."""
        while found := self._index.find(tokens, held):
            kept, until = found
            if self._writing and self._writing[1] is kept:
                wait([self._writing[0]])
                self._settle()
                continue
            try:
                cells = read_cells(kept.cells, self._room)
            except (OSError, ValueError) as error:
                log.warning("%s is not used: %s", kept.cells, error)
                self.remove(kept)
                continue
            os.utime(kept.cells)  # what was used last is known after a restart, too
            return Copy(kept.tokens, kept.start, cells, kept.hits, kept.worth), until
        self._buffer = bytearray()
        return None

    @property
    def copies(self) -> list[Copy]:
        """What is in files: the cells of each are its file."""
        return self._index.copies

    def file_bytes(self, copy: Copy) -> int:
        return self._bytes[copy.cells]

    def remove(self, copy: Copy) -> None:
        """Delete one of them."""
        if self._writing and self._writing[1] is copy:
            wait([self._writing[0]])
            self._settle()
        if copy.cells in self._bytes:
            self._index.remove(copy)
            del self._bytes[copy.cells]
            copy.cells.unlink(missing_ok=True)

    def wait(self, seconds: float) -> None:
        """Until what is being written is, or so long."""
        if self._writing:
            wait([self._writing[0]], max(0.0, seconds))

    def close(self) -> None:
        """No more is written; the folder may be used by others."""
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._lock.close()

    def _settle(self) -> None:
        """See whether the last file has been written."""
        if self._writing is None or not self._writing[0].done():
            return
        (future, kept), self._writing = self._writing, None
        if error := future.exception():
            log.warning(
                "conversations cannot be kept in %s: %s. Tried again in %.0f minutes.",
                self._folder,
                error,
                _PAUSE / 60,
            )
            self._paused_until = self._clock() + _PAUSE
            self._index.remove(kept)
            del self._bytes[kept.cells]

    def _room(self, size: int) -> memoryview:
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        return memoryview(self._buffer)[:size]

    def _surplus(self, staying: Copy | None) -> list[Path]:
        """The files that have to go, for all to be no more than asked for."""
        gone = list[Path]()
        while sum(self._bytes.values()) > self._limit:
            if self._foreign:
                gone.append(self._foreign.pop(0))
            elif least := self._index.give_up(staying):
                gone.append(least.cells)
            else:
                break
            del self._bytes[gone[-1]]
        return gone

    def _scan(self) -> None:
        """Know the files that are there, those used last as worth the most."""
        for draft in self._folder.glob("*.new"):
            draft.unlink(missing_ok=True)
        gone = list[Path]()
        for file in sorted(self._folder.glob("*.kv"), key=lambda file: file.stat().st_mtime):
            try:
                head = read_head(file)
            except (OSError, ValueError) as error:
                log.warning("%s is removed: %s", file, error)
                file.unlink(missing_ok=True)
                continue
            self._bytes[file] = head.file_bytes
            if head.fingerprint == self._fingerprint:
                kept = Copy(list(array("i", head.tokens)), head.start, file, head.hits)
                gone += [old.cells for old in self._index.put(kept)]
            else:
                self._foreign.append(file)
        for file in gone:
            del self._bytes[file]
        for file in [*gone, *self._surplus(None)]:
            file.unlink(missing_ok=True)
        if self._foreign:
            log.warning(
                "%d files in %s are of another model, KV type or llama.cpp, and not used",
                len(self._foreign),
                self._folder,
            )


def _replace(file: Path, head: Head, cells: object, before: Sequence[Path], after: Sequence[Path]) -> None:
    """Files go before it is written, so that there is not more than asked for, not even for a moment; and after, or
    before as well, where space is short. In the writer's thread. Raises OSError."""
    _unlink(before)
    try:
        if not _has_space(file.parent, head.file_bytes):
            _unlink(after)
            if not _has_space(file.parent, head.file_bytes):
                raise OSError("the disk is full, or nearly")
        write(file, head, cells)
    finally:
        _unlink(after)


def _has_space(folder: Path, size: int) -> bool:
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize >= size + _SPACE


def _unlink(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _make_private(folder: Path) -> None:
    """Conversations are nobody else's to read, and what others may write is nothing to load. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise OSError(f"others may write to {folder}")


def _locked(folder: Path) -> IO[bytes]:
    """The folder is ours until this is closed, or the process ends. Raises OSError."""
    lock = (folder / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise OSError(f"{folder} is used by another qwen-edge") from None
    return lock
