"""Loading the beginning of a prompt from the host and disk tiers into the cache, a stretch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwen_edge.kv.cell_store import FEW
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.host_tier import Copy, next_of
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.kv.reading import Read


class Restore:
    """For one open sequence. `step` never waits, as a thread reads the files. Used by the engine's thread."""

    def __init__(
        self,
        manager: KvCacheManager,
        sequence: int,
        tokens: Sequence[int],
        *,
        patience: Callable[[int], float],
        clock: Callable[[], float],
        for_client: bool = True,
        disk: DiskTier | None = None,
    ) -> None:
        """`tokens` are the prompt; its last token is always computed. `patience` tells the seconds that a number of
        tokens takes to compute: no file is waited for longer. `for_client`: a client has asked for them; else they are
        computed ahead. Without
        `disk`, only the host tier is used."""
        self._manager = manager
        self._sequence = sequence
        self._tokens, self._wanted = tokens, tokens[:-1]
        self._patience, self._clock = patience, clock
        self._for_client = for_client
        self._disk = disk
        self._scope = manager.scope(sequence)
        self._read: Read | None = None
        self._until = 0  # position up to which the file that is being read leads
        self._since: float | None = None  # when the file that is needed next was first wanted
        self.held = manager.adopt(sequence, tokens)

    @property
    def waiting(self) -> Read | None:
        """The read that must end before `step` can do anything; it may be one for another request."""
        others = self._disk.reading if self._disk and self._since is not None else None
        read = self._read or others
        return read if read and not read.done else None

    def step(self) -> bool:
        """Load one stretch, if it has been read. True while more may come. Raises EngineError."""
        self.held = self._manager.adopt(self._sequence, self._tokens)
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
        """Load nothing more: the rest is computed, or nobody wants it."""
        if self._read:
            self._read.give_up()
            self._read = None
        if self._disk:
            self._disk.free_buffer()

    def _next(self) -> tuple[Copy, int] | None:
        """The copy that leads farthest, and how far; a file only where the host tier has no more than a few tokens."""
        memory = self._manager.host_tier.leads(self._wanted, self._scope)
        files = self._disk.leads(self._wanted, self._scope) if self._disk else []
        near = next_of(memory, self.held)
        if near and near[1] - self.held >= FEW:
            return near
        return next_of([*memory, *files], self.held)

    def _bring(self, copy: Copy, until: int) -> bool:
        """Load a copy that is in memory; begin to read one that is in a file. False if nothing more can come."""
        if copy in self._manager.host_tier:
            self._manager.host_tier.use(copy, until, for_client=self._for_client)
            return self._load(copy, copy.cells, until)
        assert self._disk
        self._since = self._clock() if self._since is None else self._since
        self._read, self._until = self._disk.begin(copy), until
        return self._read is not None or self._is_patient(until)

    def _take(self, read: Read) -> bool:
        """Load what has been read, if reading is done. False if nothing more can come."""
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
        else:  # meanwhile another sequence may have computed it, or a person may have had it forgotten
            if read.copy.start <= self.held < until and self._disk.holds(read.copy):
                self._disk.use(read.copy, until, for_client=self._for_client)
                loaded = self._load(read.copy, cells, until)
        read.give_up()
        return loaded

    def _load(self, copy: Copy, cells: object, until: int) -> bool:
        loaded = self._manager.bring_back(self._sequence, self._tokens, copy, cells, until)
        self.held = until if loaded else self.held
        return loaded

    def _is_patient(self, until: int) -> bool:
        """Whether a file that leads as far as `until` may take longer to be read."""
        assert self._since is not None
        return self._clock() - self._since <= self._patience(until - self.held)
