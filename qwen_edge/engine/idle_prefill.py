"""While the engine is idle: computes the tokens that the next turn of a conversation will begin with.

Chat templates show an earlier answer otherwise than it was generated: without its reasoning, and even without the empty
think block that stands for none. So the generated tokens are not what the next prompt has, and every server computes
the answer again while the user waits. Here it has been computed by then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from qwen_edge.engine.backend import Backend
from qwen_edge.engine.cell_budget import CellBudget
from qwen_edge.engine.cost_model import CostModel
from qwen_edge.engine.misses import Misses
from qwen_edge.engine.tokenizing import Tokenized
from qwen_edge.kv.restore import Restore
from qwen_edge.kv.slice import Slice
from qwen_edge.protocol.messages import EVERYBODY, Caller

_SECONDS = 0.15  # of computing, for which a request that comes just then has to wait
_LEAST = 8  # tokens at once, however slow the device
_LOST = 16  # tokens that may have left the cache meanwhile
_HOUR = 3600.0
_CONTENDED = 50.0  # times a second that a core is taken away: a few without, 60 to 130 where one other program computes
_YIELD = 3.0  # times as long as the last piece took: the pause after it, while another program computes


@dataclass
class _Wanted:
    """A prompt of this caller. `held` of its tokens have been computed before; some may have left the cache since."""

    tokens: list[int]
    held: int
    caller: Caller


@dataclass(frozen=True, slots=True)
class IdleStep:
    """A piece of idle work: how many tokens were computed, maybe none, and how long the decode took."""

    computed: int
    seconds: float


class IdlePrefill:
    """Prompts that are expected. One piece of them is computed at a time, and no sequence stays open between two
    pieces: a request takes its turn as if there were no idle work. Used by the engine's thread."""

    def __init__(
        self,
        backend: Backend,
        budget: CellBudget,
        cost: CostModel,
        misses: Misses,
        per_hour: float,
        *,
        clock: Callable[[], float],
    ) -> None:
        """At most `per_hour` tokens are computed in an hour."""
        self._backend = backend
        self._cell_budget, self._kv_cache = budget, budget.kv_cache
        self._cost = cost
        self._misses = misses
        self._clock = clock
        self._contended = 0  # pieces in a row during which another program computed
        self._pause_until = 0.0  # end of the pause that leaves the cores to other programs
        self._per_hour = self._tokens_left = per_hour
        self._counted = clock()
        self._wanted: deque[_Wanted] = deque(maxlen=backend.parallel)

    def add(self, tokens: Tokenized, caller: Caller = EVERYBODY) -> None:
        """A prompt is expected to begin with these tokens. When there are too many prompts, the oldest is forgotten. An
        error in a prompt is reported to the request that comes with it. Nothing is computed ahead if the memory of the
        model shares no prefixes: no request could use the cells."""
        if not self._backend.cells.memory.shares_prefixes:
            return
        if isinstance(tokens, list) and self._per_hour and 0 < len(tokens) < self._kv_cache.size:
            self._kv_cache.drop_outdated(tokens, caller)
            # not only what the cache holds: a full cache may have let go of it since the answer ended
            held = max(self._kv_cache.known(tokens, caller.scope), self._misses.computed(tokens, caller.scope))
            self._wanted.append(_Wanted(tokens, held, caller))

    @property
    def pause(self) -> float:
        """Seconds until the next piece, for which the cores are left to other programs."""
        return max(0.0, self._pause_until - self._clock())

    def step(self) -> IdleStep | None:
        """Compute a piece of the prompt that was added last. None if there is nothing to compute now. Raises
        EngineError."""
        if self.pause:
            return None
        while self._wanted and self._is_there(self._wanted[-1]):
            self._wanted.pop()
        budget = self._budget()
        if not self._wanted or budget < 1:
            return None
        wanted = self._wanted[-1]
        tokens = wanted.tokens
        opened = self._kv_cache.open(tokens, wanted.caller, for_client=False)
        assert opened, "no sequence is open while the engine is idle"
        seq_id, _ = opened
        held = self._restored(seq_id, tokens)
        # to compute all of a conversation anew is no work for idle times
        count = self._count(len(tokens) - held, budget) if held >= wanted.held - _LOST else 0
        if count and self._cell_budget.reserve(count):
            seconds = self._compute(wanted, seq_id, held, count)
        else:
            self._wanted.pop()
            count, seconds = 0, 0.0
        wanted.held = held + count
        self._kv_cache.park(seq_id, tokens[: wanted.held], len(tokens), requests=0)
        return IdleStep(count, seconds)

    def _is_there(self, wanted: _Wanted) -> bool:
        return self._kv_cache.known(wanted.tokens, wanted.caller.scope) == len(wanted.tokens)

    def _restored(self, seq_id: int, tokens: list[int]) -> int:
        """Load what copies in memory hold of these tokens, too, but no file; returns how many tokens are in the cache
        then. Raises EngineError."""
        restore = Restore(self._kv_cache, seq_id, tokens, patience=lambda _: 0.0, clock=self._clock, for_client=False)
        while restore.step():
            pass
        return restore.held

    def _count(self, rest: int, budget: int) -> int:
        """How many of the `rest` tokens the next piece has."""
        return min(rest, budget, self._backend.batch, max(_LEAST, self._cost.tokens_within(_SECONDS, 0)))

    def _compute(self, wanted: _Wanted, seq_id: int, held: int, count: int) -> float:
        """Compute the next `count` tokens; returns the seconds that the decode took. Raises EngineError."""
        tokens, rest = wanted.tokens, len(wanted.tokens) - held
        self._backend.cells.expect(self._kv_cache.used, 0, rest, rest, 1)
        began, before = self._clock(), self._backend.preempted
        self._backend.decode([Slice(seq_id, held, tokens[held : held + count], 0)])
        seconds = self._clock() - began
        self._cost.learn(count, 0, seconds)
        self._kv_cache.compute(seq_id, held + count)
        self._tokens_left -= count
        self._misses.remember_ahead(tokens[: held + count], wanted.caller.scope)
        contended = self._backend.preempted - before > _CONTENDED * max(seconds, _SECONDS)
        self._contended = self._contended + 1 if contended else 0
        # threads that wait for each other, some of which cannot run, get little done and let no other program work
        if self._contended > 1:  # once may have been our own daemon
            self._pause_until = began + (1 + _YIELD) * seconds
        return seconds

    def _budget(self) -> int:
        """How many tokens may be computed now."""
        now = self._clock()
        self._tokens_left = min(self._per_hour, self._tokens_left + (now - self._counted) * self._per_hour / _HOUR)
        self._counted = now
        return int(min(self._tokens_left, self._kv_cache.size))
