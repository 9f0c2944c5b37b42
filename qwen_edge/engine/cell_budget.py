"""How many cells of the KV cache requests may have: those configured, or fewer while memory is short.

A cache begins small. When there is no memory for a larger one, the cache that is there serves on: some requests then
wait for others, until there is memory again.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_edge.engine.backend import Backend
from qwen_edge.engine.scheduler import cells_ahead, victim
from qwen_edge.engine.sequence import Sequence
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.protocol.messages import Failed

_MARGIN = 32  # cells by which each placed answer may grow, before another request is let in
_AGAIN = 10.0  # seconds after which a larger cache is asked for again: all streams stand still for a try


class CellBudget:
    """Sets the size of `cells`. Used by the engine's thread."""

    def __init__(self, backend: Backend, cells: KvCacheManager, clock: Callable[[], float]) -> None:
        self.cells = cells
        self._backend, self._clock = backend, clock
        self._again = 0.0  # when a larger cache may be asked for

    @property
    def is_short(self) -> bool:
        return self.cells.size < self._backend.context

    def refresh(self) -> None:
        """Allow all cells that are configured again, if it is time for a try or the cache has grown meanwhile."""
        if self.is_short and (self._clock() >= self._again or self._backend.room > self.cells.size):
            self.cells.size = self._backend.context

    def make_ready(self, placed: list[Sequence]) -> float:
        """Make cells ready for the next steps; returns the seconds that took. Raises EngineError."""
        began = self._clock()
        self.cells.tidy()
        going = self.cells.going
        self._backend.expect(self.cells.used - going, going, *cells_ahead(placed))
        return self._clock() - began

    def reserve(self, count: int) -> bool:
        """Make `count` cells free, with memory behind them. False if placed sequences hold too many. Raises
        EngineError."""
        if not self.cells.reserve(count):
            return False
        if self._backend.make_room(self.cells.used + count):
            return True
        self.cells.size = min(self._backend.room, self._backend.context)
        self._again = self._clock() + _AGAIN
        return self.cells.reserve(count)

    def who_gives_way(self, sequence: Sequence, placed: list[Sequence], *, crowded: bool) -> list[Sequence] | None:
        """The placed sequences of lower priority, as few as possible, that must lose their place so that this one gets
        one; None if even all of them are not enough. While it is `crowded`, a sequence only gets the place of
        another."""
        staying, going = list(placed), list[Sequence]()
        while staying and ((crowded and not going) or not self._fits(sequence, staying, going)):
            one = victim(staying)
            if one.rank <= sequence.rank:
                return None
            staying.remove(one)
            going.append(one)
        return going

    def _fits(self, sequence: Sequence, staying: list[Sequence], going: list[Sequence]) -> bool:
        """Whether there is a place and cells for one more sequence beside those that stay. All cells of those that go
        count as free, which is a little too much where sequences share them."""
        if len(staying) >= self._backend.parallel:
            return False
        growing = sum(one.remaining + _MARGIN for one in staying)
        freed = sum(one.computed for one in going)
        needed = growing + len(sequence.tokens) - self.cells.shared(sequence.tokens, sequence.scope)
        return self.cells.available + freed >= needed

    def refusal(self, sequence: Sequence) -> Failed | None:
        """The refusal of a waiting sequence that needs more cells than there are, even alone; None for any other."""
        if not self.is_short or len(sequence.tokens) < self.cells.size:
            return None
        detail = f"its {len(sequence.tokens)} tokens are more than the {self.cells.size} that the KV cache can hold"
        return Failed(sequence.request.id, "no_memory", detail)
