"""What copies and files hold of a prompt comes back into the cache, a stretch at a time. The rest is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwen_edge.kv.cell_store import FEW
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.host_tier import Copy, next_of
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.kv.reading import Read


class Restore:
    """Of one open sequence. `step` never waits: files are read by a thread. Used by the engine's thread."""

    def __init__(
        self,
        cells: KvCacheManager,
        sequence: int,
        tokens: Sequence[int],
        *,
        patience: Callable[[int], float],
        clock: Callable[[], float],
        asked: bool = True,
        disk: DiskTier | None = None,
    ) -> None:
        """`tokens` are the prompt, of which the last one is always computed. `patience` tells the seconds that a
        number of tokens takes to compute: no file is waited for longer. `asked`: by a client, not to compute ahead.
        Without `disk` only copies in memory are used."""
        self._cells = cells
        self._sequence = sequence
        self._tokens, self._wanted = tokens, tokens[:-1]
        self._patience, self._clock = patience, clock
        self._asked = asked
        self._disk = disk
        self._scope = cells.scope(sequence)
        self._read: Read | None = None
        self._until = 0  # how far what is being read leads
        self._since: float | None = None  # when the file that is needed next was first wanted
        self.held = cells.adopt(sequence, tokens)

    @property
    def waiting(self) -> Read | None:
        """The file that has to be read before `step` can do anything; it may be for another request."""
        others = self._disk.reading if self._disk and self._since is not None else None
        read = self._read or others
        return read if read and not read.done else None

    def step(self) -> bool:
        """Bring back one stretch, if it is there. True while there is more to come. Raises EngineError."""
        self.held = self._cells.adopt(self._sequence, self._tokens)
        if self._read:
            more = self._take(self._read)
        elif found := self._next():
            more = self._bring(*found)
        else:
            more = False
        if more and not self._read:
            more = self._next() is not None
        if not more:
            self.drop()
        return more

    def drop(self) -> None:
        """Nothing more comes back: the rest is computed, or nobody wants it."""
        if self._read:
            self._read.give_up()
            self._read = None
        if self._disk:
            self._disk.rest()

    def _next(self) -> tuple[Copy, int] | None:
        """What leads farthest, from memory if that has much of it."""
        memory = self._cells.host_tier.leads(self._wanted, self._scope)
        files = self._disk.leads(self._wanted, self._scope) if self._disk else []
        near = next_of(memory, self.held)
        if near and near[1] - self.held >= FEW:
            return near
        return next_of([*memory, *files], self.held)

    def _bring(self, copy: Copy, until: int) -> bool:
        """From memory at once; from a file when it is read. False if there is no more to be had."""
        if copy in self._cells.host_tier:
            self._cells.host_tier.use(copy, until, asked=self._asked)
            return self._load(copy, copy.cells, until)
        assert self._disk
        self._since = self._clock() if self._since is None else self._since
        self._read, self._until = self._disk.begin(copy), until
        return self._read is not None or self._is_patient(until)

    def _take(self, read: Read) -> bool:
        """What has been read. False if there is no more to be had."""
        assert self._disk
        until = self._until
        if not read.done:
            if self._is_patient(until):
                return True
            self._disk.too_slow(read)
            return False
        self._read, self._since, loaded = None, None, True
        try:
            cells = read.cells()
        except (OSError, ValueError, MemoryError) as error:
            self._disk.failed(read.copy, error)
        else:  # others may have computed it meanwhile, or somebody wants it forgotten
            if read.copy.start <= self.held < until and self._disk.holds(read.copy):
                self._disk.use(read.copy, until, asked=self._asked)
                loaded = self._load(read.copy, cells, until)
        read.give_up()
        return loaded

    def _load(self, copy: Copy, cells: object, until: int) -> bool:
        loaded = self._cells.bring_back(self._sequence, self._tokens, copy, cells, until)
        self.held = until if loaded else self.held
        return loaded

    def _is_patient(self, until: int) -> bool:
        """Whether what leads so far may take longer to be read."""
        assert self._since is not None
        return self._clock() - self._since <= self._patience(until - self.held)
