"""How many cells of the KV cache requests may have: those configured, or fewer while memory is short.

A cache begins small. When there is no memory for a larger one, the cache that is there serves on: some requests then
wait for others, until there is memory again.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_edge.engine.scheduler import cells_ahead, victim
from qwen_edge.engine.sequence import Sequence
from qwen_edge.kv.cell_store import CellStore
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.protocol.messages import Failed

_MARGIN = 32  # cells by which each placed answer may grow, before another request is let in
_AGAIN = 10.0  # seconds after which a larger cache is asked for again: all streams stand still for a try


class CellBudget:
    """Sets the size of `kv_cache`, which hands out the cells of `store`. Used by the engine's thread."""

    def __init__(self, store: CellStore, kv_cache: KvCacheManager, parallel: int, clock: Callable[[], float]) -> None:
        """`parallel`: how many requests may run at once."""
        self.kv_cache = kv_cache
        self._store, self._parallel, self._clock = store, parallel, clock
        self._again = 0.0  # when a larger cache may be asked for

    @property
    def is_short(self) -> bool:
        return self.kv_cache.size < self._store.size

    def refresh(self) -> None:
        """Allow all cells that are configured again, if it is time for a try or the cache has grown meanwhile."""
        if self.is_short and (self._clock() >= self._again or self._store.room > self.kv_cache.size):
            self.kv_cache.size = self._store.size

    def make_ready(self, placed: list[Sequence]) -> float:
        """Make cells ready for the next steps; returns the seconds that took. Raises EngineError."""
        began = self._clock()
        self.kv_cache.tidy()
        leaving = self.kv_cache.leaving
        self._store.expect(self.kv_cache.used - leaving, leaving, *cells_ahead(placed), len(placed))
        return self._clock() - began

    def reserve(self, count: int) -> bool:
        """Make `count` cells free, with memory behind them. False if placed sequences hold too many. Raises
        EngineError."""
        if not self.kv_cache.reserve(count):
            return False
        if self._store.make_room(self.kv_cache.used + count):
            return True
        self.kv_cache.size = min(self._store.room, self._store.size)
        self._again = self._clock() + _AGAIN
        return self.kv_cache.reserve(count)

    def who_gives_way(self, sequence: Sequence, placed: list[Sequence], *, crowded: bool) -> list[Sequence] | None:
        """The placed sequences of lower priority, as few as possible, that must lose their place so that this one gets
        one; None if even all of them are not enough. While it is `crowded`, a sequence only gets the place of
        another."""
        staying, displaced = list(placed), list[Sequence]()
        while staying and ((crowded and not displaced) or not self._fits(sequence, staying, displaced)):
            one = victim(staying)
            if one.rank <= sequence.rank:
                return None
            staying.remove(one)
            displaced.append(one)
        return displaced

    def _fits(self, sequence: Sequence, staying: list[Sequence], displaced: list[Sequence]) -> bool:
        """Whether there is a place and cells for one more sequence beside those that stay. All cells of those that go
        count as free, which is a little too much where sequences share them."""
        if len(staying) >= self._parallel:
            return False
        growing = sum(one.remaining + _MARGIN for one in staying)
        freed = sum(one.computed for one in displaced)
        needed = growing + len(sequence.tokens) - self.kv_cache.shared(sequence.tokens, sequence.scope)
        return self.kv_cache.available + freed >= needed

    def refusal(self, sequence: Sequence) -> Failed | None:
        """The refusal of a waiting sequence that needs more cells than there are, even alone; None if it may wait."""
        if not self.is_short or len(sequence.tokens) < self.kv_cache.size:
            return None
        detail = f"its {len(sequence.tokens)} tokens are more than the {self.kv_cache.size} that the KV cache can hold"
        return Failed(sequence.request.id, "no_memory", detail)
