"""While the engine is idle: computes what the next turn of a conversation will begin with.

Chat templates show an earlier answer otherwise than it was generated: without its reasoning, and even without the empty
think block that stands for none. So what was generated is no beginning of the next prompt, and every server reads the
answer again while the user waits. Here it has been read by then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from qwen_edge.engine.backend import Backend
from qwen_edge.engine.cell_budget import CellBudget
from qwen_edge.engine.cost_model import CostModel
from qwen_edge.engine.misses import Misses
from qwen_edge.engine.tokenizing import Tokens
from qwen_edge.kv.restore import Restore
from qwen_edge.kv.slice import Slice
from qwen_edge.protocol.messages import EVERYBODY, Caller, Share

_SECONDS = 0.15  # of computing, for which a request that comes just then has to wait
_LEAST = 8  # tokens at once, however slow the device
_LOST = 16  # tokens that may have left the cache meanwhile
_HOUR = 3600.0
_CROWDED = 50.0  # times a second that a core is taken away: a few without, 60 to 130 where one other program computes
_YIELD = 3.0  # times as long as a piece has taken then, in which nothing is computed ahead


@dataclass
class _Wanted:
    """A prompt, how many of its tokens have been computed before (not all of them need be in the cache yet), and whose
    it is."""

    tokens: list[int]
    held: int
    caller: Caller


class IdlePrefill:
    """Prompts that will be wanted. A piece at a time is computed, with no sequence left open between two: a request
    takes its turn as if there were nothing here. Used by the engine's thread."""

    def __init__(
        self,
        backend: Backend,
        budget: CellBudget,
        pace: CostModel,
        misses: Misses,
        per_hour: float,
        *,
        clock: Callable[[], float],
        note: Callable[[float, tuple[Share, ...]], None],
    ) -> None:
        """No more than so many tokens are computed in an hour. `note` hears of every step when it has ended: how long
        it took, and of what."""
        self._backend = backend
        self._cell_budget, self._cells = budget, budget.cells
        self._pace = pace
        self._misses = misses
        self._clock = clock
        self._note = note
        self._crowded = 0  # pieces in a row during which others wanted the cores
        self._until = 0.0  # when nothing is left to them any more
        self._per_hour = self._left = per_hour
        self._counted = clock()
        self._wanted: deque[_Wanted] = deque(maxlen=backend.parallel)

    def add(self, tokens: Tokens, caller: Caller = EVERYBODY) -> None:
        """These will be wanted; where there are too many, the oldest are forgotten. What is wrong with a prompt is told
        to the request that comes with it."""
        if isinstance(tokens, list) and self._per_hour and 0 < len(tokens) < self._cells.size:
            self._cells.make_way(tokens, caller)
            # not only what the cache holds: a full one may have let go of it since the answer ended
            held = max(self._cells.known(tokens, caller.scope), self._misses.computed(tokens, caller.scope))
            self._wanted.append(_Wanted(tokens, held, caller))

    @property
    def pause(self) -> float:
        """Seconds that are left to others before the next piece."""
        return max(0.0, self._until - self._clock())

    def step(self) -> bool:
        """Compute a piece of what was added last. False if there is nothing to compute now. Raises EngineError."""
        if self.pause:
            return False
        while self._wanted and self._is_there(self._wanted[-1]):
            self._wanted.pop()
        budget = self._budget()
        if not self._wanted or budget < 1:
            return False
        wanted = self._wanted[-1]
        tokens = wanted.tokens
        opened = self._cells.open(tokens, wanted.caller, asked=False)
        assert opened, "nothing is open while the engine is idle"
        seq_id, _ = opened
        computed = self._brought_back(seq_id, tokens)
        if computed < wanted.held - _LOST:  # to compute all of a conversation anew is no work for idle times
            self._wanted.pop()
            self._cells.park(seq_id, tokens[:computed], len(tokens), asked=0)
            return True
        count = min(len(tokens) - computed, budget, self._backend.batch)
        count = min(count, max(_LEAST, self._pace.tokens_within(_SECONDS, 0)))
        if self._cell_budget.reserve(count):
            rest = len(tokens) - computed
            self._backend.expect(self._cells.used, 0, rest, rest)
            self._decode(Slice(seq_id, computed, tokens[computed : computed + count], 0))
            computed += count
            self._cells.compute(seq_id, computed)
            self._left -= count
            self._misses.remember_ahead(tokens[:computed], wanted.caller.scope)
        else:
            self._wanted.pop()
        wanted.held = computed
        self._cells.park(seq_id, tokens[:computed], len(tokens), asked=0)
        return True

    def _is_there(self, wanted: _Wanted) -> bool:
        return self._cells.known(wanted.tokens, wanted.caller.scope) == len(wanted.tokens)

    def _brought_back(self, seq_id: int, tokens: list[int]) -> int:
        """What copies in memory hold of it, too; files are read for those who wait. Raises EngineError."""
        restore = Restore(self._cells, seq_id, tokens, patience=lambda _: 0.0, clock=self._clock, asked=False)
        while restore.step():
            pass
        return restore.held

    def _decode(self, piece: Slice) -> None:
        began, before = self._clock(), self._backend.preempted
        self._backend.decode([piece])
        seconds, count = self._clock() - began, len(piece.tokens)
        self._pace.learn(count, 0, seconds)
        crowded = self._backend.preempted - before > _CROWDED * max(seconds, _SECONDS)
        self._crowded = self._crowded + 1 if crowded else 0
        # threads that wait for each other, some of which cannot run, get little done and let nobody else do it
        if self._crowded > 1:  # once may have been our own daemon
            self._until = began + (1 + _YIELD) * seconds
        self._note(seconds, (Share(0, count, 0),))

    def _budget(self) -> int:
        """How many tokens may be computed now."""
        now = self._clock()
        self._left = min(self._per_hour, self._left + (now - self._counted) * self._per_hour / _HOUR)
        self._counted = now
        return int(min(self._left, self._cells.size))
