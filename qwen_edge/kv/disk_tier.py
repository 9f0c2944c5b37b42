"""The disk tier: copies of cells in files, a stretch of tokens each, which outlive the engine.

A file is written as a draft and then renamed, so that it is whole or not there. It contains the checksum of its cells
and the fingerprint of all that they were computed with: a damaged file, or one with another fingerprint, is a line in
the log and is not used. The files never take more than the configured bytes, nor are more bytes written in a day, as
flash memory wears out.

The engine's thread never waits for the disk, which may hang for seconds: one thread reads, another one does the rest.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from qwen_edge.kv.budget import Budget
from qwen_edge.kv.file import Head, is_ours, read_cells, read_head, write
from qwen_edge.kv.folder import Folder
from qwen_edge.kv.host_tier import Copy, HostTier, Lead, Prompt, reach
from qwen_edge.kv.model_id import ModelId
from qwen_edge.kv.note import Note
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.reading import Read, ReadFile
from qwen_edge.protocol.messages import Caller

log = logging.getLogger(__name__)

_PAUSE = 600.0  # seconds without another try after a file could not be written
_SLOW_PAUSE = 60.0  # seconds without another try after a file could not be read, or not in time
_NOT_KEPT = "conversations cannot be kept"


class DiskTier:
    """The files of one folder, which nobody else uses meanwhile. Called by the engine's thread. `__init__` blocks for
    as long as the disk needs, `wait` and `pins.written` for no longer than they are told, and nothing else blocks."""

    def __init__(
        self,
        folder: Path | Folder,
        fingerprint: str,
        *,
        limit: int,
        per_day: int,
        cell: int,
        clock: Callable[[], float] = time.time,
        read: ReadFile = read_cells,
    ) -> None:
        """The files have up to `limit` bytes in all, and up to `per_day` bytes are written in a day; a cell has about
        `cell` bytes. Files with another fingerprint are not used, and are deleted first. `read` reads the cells of a
        file. Raises OSError for a folder that cannot be used."""
        self._fingerprint = fingerprint
        self._model_id: ModelId | None = None
        self._limit = limit
        self._clock = clock
        self._read_file = read
        self._bytes: dict[Path, int] = {}
        self._buffer = bytearray()  # kept between reads: memory that was used before is quicker
        self._foreign: list[Path] = []  # files with another fingerprint; the last used ones at the end
        self._folder = folder if isinstance(folder, Folder) else Folder(folder)
        self._writer, self._reader = ThreadPoolExecutor(1, "disk"), ThreadPoolExecutor(1, "disk-read")
        self._writing: tuple[Future[None], Copy, list[tuple[Copy, int]]] | None = None
        self._touching: Future[None] | None = None  # the last job that set the times of used files
        self._used = set[Path]()  # files whose time is still to be set to that of their last use
        self._reading: Read | None = None
        self._stuck: Read | None = None  # a read that was not done in time
        self._paused_until = self._slow_until = 0.0
        self.renewed = 0  # how often all files have gone, as somebody has deleted the folder
        self._budget = Budget(Note(self._folder, "written.json", self._writer), per_day, clock)
        self.pins = Pins(Note(self._folder, "pins.json", self._writer), clock)
        self._most = limit // cell
        self._index = HostTier(self._most, self.pins)
        self._scan()

    def serve(self, model_id: ModelId) -> None:
        """The KV cache of this model and adapter uses the files from now on. Raises ValueError if the cache of another
        does: the fingerprint is that of one model and adapter."""
        if self._model_id not in (None, model_id):
            raise ValueError(f"the files of {self._model_id} are not for {model_id}")
        self._model_id = model_id

    @property
    def ready(self) -> bool:
        """Whether `put` may be called: no file is being written, and another one may be."""
        return not self.busy and not self.refuses

    @property
    def refuses(self) -> str:
        """Why nothing is written for now; empty if something may be."""
        if self._budget.left <= 0:
            return "remember.bytes_per_day is used up"
        return f"{self._folder.path} cannot be written to" if self._clock() < self._paused_until else ""

    @property
    def busy(self) -> bool:
        """Whether a file is being written."""
        self._settle()
        return self._writing is not None

    def reach(self, tokens: Sequence[int], scope: str | None = "") -> int:
        """How many of these tokens, from the beginning, the files hold for this scope."""
        return reach(self._index.leads(tokens, scope), 0)

    def leads(self, tokens: Sequence[int], scope: str | None = "") -> list[Lead]:
        """The files that hold some of these tokens, as copies whose cells must be read before, and how far this scope
        may use them. Empty while the disk is known to be slow."""
        hangs = self._stuck is not None and not self._stuck.done
        return [] if hangs or self._clock() < self._slow_until else self._index.leads(tokens, scope)

    def fits(self, copy: Copy, prompts: Sequence[Prompt]) -> bool:
        """Whether there is room for a copy beside the files that these prompts need."""
        needed = {one for prompt in prompts for one, _ in self._index.leads(prompt.tokens, prompt.caller.scope)}
        size = self._head_of(copy).file_bytes + sum(self._bytes[one.cells] for one in needed)
        return size <= self._limit and copy.size + sum(one.size for one in needed) <= self._most

    def put(self, copy: Copy) -> None:
        """Have a copy written that is in no file yet; only when `ready`. Its cells must not change until then."""
        assert self._writing is None
        head = self._head_of(copy)
        file = self._folder.path / head.name
        kept = Copy(copy.tokens, copy.start, file, copy.hits, caller=copy.caller)
        replaced = self._index.put(kept)
        others = [old for old in (*replaced.covered, *replaced.evicted) if old.cells != file]
        gone = [(old, self._bytes.pop(old.cells)) for old in others]
        self._bytes[file] = head.file_bytes
        surplus = self._surplus(kept)
        # if there is room for both, a power cut in between leaves the files that the new one replaces
        both = sum(self._bytes.values()) + sum(size for _, size in gone) <= self._limit
        after = [old.cells for old, _ in gone]
        before, after = (surplus, after) if both else ([*surplus, *after], [])
        self._budget.spend(head.file_bytes)
        job = self._writer.submit(self._replace, file, head, copy.cells, before, after)
        self._writing = job, kept, gone if both else []

    def begin(self, copy: Copy) -> Read | None:
        """Begin to read a file that `leads` names. None while another one is being read."""
        if self._reading and not self._reading.over:
            return None
        written = self._writing[0] if self._writing and self._writing[1] is copy else None
        self._reading = Read(self._reader, self._read_file, copy, self._room, written)
        return self._reading

    @property
    def reading(self) -> Read | None:
        """The read that is under way, or was last."""
        return self._reading

    def use(self, copy: Copy, until: int, *, for_client: bool) -> None:
        """A copy that was read has been loaded into the cache as far as `until`."""
        self._index.use(copy, until, for_client=for_client)
        self._folder.works("files cannot be read")
        self._used.add(copy.cells)
        if self._touching is None or self._touching.done():  # so that the order of use is known after a restart
            used, self._used = self._used, set()
            self._touching = self._writer.submit(self._folder.touch, used)

    def failed(self, copy: Copy, error: Exception) -> None:
        """A copy could not be read. A damaged file is deleted, and a missing one forgotten. Any other failure is the
        disk's: nothing is read for a while."""
        if isinstance(error, FileNotFoundError):
            self._folder.tell("files are not used, as somebody has deleted them", error)
            self._forget(copy)
        elif isinstance(error, ValueError):
            log.warning("%s is not used: %s", copy.cells, error)
            self.remove(copy)
        else:
            self._folder.tell("files cannot be read", error)
            self._slow_until = self._clock() + _SLOW_PAUSE

    def too_slow(self, read: Read) -> None:
        """A read was not done within the time that its tokens take to compute: nothing is read for a while."""
        late = TimeoutError(f"{self._bytes.get(read.copy.cells, 0) / 1e6:.1f} MB take longer to read than to compute")
        self._folder.tell("the disk is slow", late)
        self._slow_until, self._stuck = self._clock() + _SLOW_PAUSE, read

    def free_buffer(self) -> None:
        """Give the memory for reading back, unless a read is under way."""
        if not self._reading or self._reading.over:
            self._reading, self._buffer = None, bytearray()

    @property
    def copies(self) -> list[Copy]:
        """All copies that are in files; `cells` of each is the path of its file."""
        return self._index.copies

    def parts(self, tokens: Sequence[int], owner: str) -> list[Copy]:
        """The owner's files of which all tokens, from the beginning, are among these."""
        return self._index.parts(tokens, owner)

    def holds(self, copy: Copy) -> bool:
        """Whether a copy is still in a file."""
        return copy.cells in self._bytes and copy in self._index

    def file_bytes(self, copy: Copy) -> int:
        return self._bytes[copy.cells]

    def remove(self, copy: Copy) -> None:
        """Delete the file of a copy, in the writer's thread: if it is being written, after that."""
        if self._forget(copy):
            self._writer.submit(self._folder.unlink, [copy.cells])

    def wait(self, seconds: float) -> None:
        """Wait until all is written and deleted that is to be, pins and counts included; no longer than `seconds`."""
        after_all = self._writer.submit(lambda: None)  # one thread does one thing after the other
        wait([after_all], max(0.0, seconds))

    def close(self) -> None:
        """Write nothing more; others may use the folder."""
        for thread in (self._writer, self._reader):
            thread.shutdown(wait=False, cancel_futures=True)
        self._folder.close()

    def _settle(self) -> None:
        """Note whether the last file has been written, and whether the folder is still there."""
        if self._writing is None:
            self._renew(None)
            return
        if not self._writing[0].done():
            return
        (job, kept, replaced), self._writing = self._writing, None
        if error := job.exception():
            assert isinstance(error, Exception)
            self._folder.tell(f"{_NOT_KEPT}; tried again every {_PAUSE / 60:.0f} minutes", error)
            self._paused_until = self._clock() + _PAUSE
            self._forget(kept)
            for old, size in replaced:  # the files that it was to replace are still there
                self._index.put(old)
                self._bytes[old.cells] = size
            return
        self._folder.works(f"{_NOT_KEPT}; tried again every {_PAUSE / 60:.0f} minutes")
        self._renew(kept)

    def _renew(self, kept: Copy | None) -> None:
        """If the folder had gone and was made again, it contains nothing but what has just been written (`kept`)."""
        if self.renewed == self._folder.renewals:
            return
        self.renewed = self._folder.renewals
        self._foreign.clear()
        self._bytes = {file: size for file, size in self._bytes.items() if kept and file == kept.cells}
        for copy in [one for one in self._index.copies if one is not kept]:
            self._index.remove(copy)
        self._budget.write()
        self.pins.write()

    def _head_of(self, copy: Copy) -> Head:
        size = len(memoryview(copy.cells).cast("B"))
        tokens, owner = array("i", copy.tokens).tobytes(), copy.caller.owner
        return Head(self._fingerprint, copy.start, tokens, copy.hits, size, owner=owner)

    def _forget(self, copy: Copy) -> bool:
        """The file of a copy has gone. False if that was known already."""
        if not self.holds(copy):
            return False
        self._index.remove(copy)
        del self._bytes[copy.cells]
        return True

    def _room(self, size: int) -> memoryview:
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        return memoryview(self._buffer)[:size]

    def _surplus(self, staying: Copy | None) -> list[Path]:
        """The files that have to be deleted, for all to be within `limit`."""
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
        """Find our files in the folder; the last used ones get the highest scores."""
        gone = list[Path]()
        for file in self._folder.list():
            try:
                if not is_ours(file):
                    continue
                if file.suffix == ".new":
                    gone.append(file)
                    continue
                head = read_head(file)
            except OSError as error:
                if file.suffix == ".kv":
                    self._folder.tell("files cannot be read", error)
                continue
            except ValueError as error:
                log.warning("%s is removed: %s", file, error)
                gone.append(file)
                continue
            self._bytes[file] = head.file_bytes
            if head.fingerprint == self._fingerprint:
                tokens, caller = list(array("i", head.tokens)), Caller(head.owner)
                kept = Copy(tokens, head.start, file, head.hits, caller=caller)
                replaced = self._index.put(kept)
                for old in (*replaced.covered, *replaced.evicted):
                    gone.append(old.cells)
                    del self._bytes[old.cells]
            else:
                self._foreign.append(file)
        self._folder.unlink([*gone, *self._surplus(None)])
        if self._foreign:
            log.warning(
                "%d files in %s are of another model, KV type or llama.cpp, and not used",
                len(self._foreign),
                self._folder.path,
            )

    def _replace(self, file: Path, head: Head, cells: object, before: Sequence[Path], after: Sequence[Path]) -> None:
        """Write a file. The files in `before` are deleted first, so that the folder never exceeds its limit, not even
        for a moment; those in `after` are deleted last, or first as well where the disk is nearly full. In the writer's
        thread. Raises OSError."""
        self._folder.renew()
        self._folder.unlink(before)
        if not self._folder.has_space(head.file_bytes):
            self._folder.unlink(after)
            if not self._folder.has_space(head.file_bytes):
                raise OSError("the disk is full, or nearly")
        write(file, head, cells)
        self._folder.unlink(after)
