"""How many cells requests may have: those that are configured, or, where memory is short, those that are there.

A cache begins small. When it cannot grow, nothing is lost: what is there serves as a smaller one, in which some
requests wait for others, until there is memory again.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_edge.engine.backend import Backend
from qwen_edge.engine.scheduler import victim
from qwen_edge.engine.sequence import Sequence
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.protocol.messages import Failed

_MARGIN = 32  # cells for each running answer to grow, before another request is let in
_AGAIN = 10.0  # seconds after which a larger cache is asked for again: all streams stand still for a try


class CellBudget:
    """Used by the engine's thread; sets the size of the cells."""

    def __init__(self, backend: Backend, cells: KvCacheManager, clock: Callable[[], float]) -> None:
        self.cells = cells
        self._backend, self._clock = backend, clock
        self._again = 0.0

    @property
    def is_short(self) -> bool:
        return self.cells.size < self._backend.context

    def look(self) -> None:
        """Ask for all that is configured again, if it is time, or if the cache has grown meanwhile."""
        if self.is_short and (self._clock() >= self._again or self._backend.room > self.cells.size):
            self.cells.size = self._backend.context

    def reserve(self, count: int) -> bool:
        """Make so many cells free, and see that there is memory for them. False if requests hold too many. Raises
        EngineError."""
        if not self.cells.reserve(count):
            return False
        if self._backend.make_room(self.cells.used + count):
            return True
        self.cells.size = min(self._backend.room, self._backend.context)
        self._again = self._clock() + _AGAIN
        return self.cells.reserve(count)

    def in_its_way(self, sequence: Sequence, running: list[Sequence], *, crowded: bool) -> list[Sequence] | None:
        """The running sequences of lower priority, as few as possible, that must give way for this one; None if even
        all of them would not be enough. While it is `crowded`, nobody comes in for whom nobody gives way."""
        staying, lower = list(running), list[Sequence]()
        while staying and ((crowded and not lower) or not self._fits(sequence, staying, lower)):
            one = victim(staying)
            if one.rank <= sequence.rank:
                return None
            staying.remove(one)
            lower.append(one)
        return lower

    def _fits(self, sequence: Sequence, staying: list[Sequence], going: list[Sequence]) -> bool:
        """Whether there is a place and cells for one more beside those that stay. What those that go hold is counted as
        free, which is a little too much where they share it."""
        if len(staying) >= self._backend.parallel:
            return False
        growing = sum(one.remaining + _MARGIN for one in staying)
        freed = sum(one.computed for one in going)
        needed = growing + len(sequence.tokens) - self.cells.shared(sequence.tokens, sequence.scope)
        return self.cells.available + freed >= needed

    def refusal(self, sequence: Sequence) -> Failed | None:
        """For a request that waits and needs more cells than there are, even alone; None for others."""
        if not self.is_short or len(sequence.tokens) < self.cells.size:
            return None
        detail = f"its {len(sequence.tokens)} tokens are more than the {self.cells.size} that the KV cache can hold"
        return Failed(sequence.request.id, "no_memory", detail)
