"""The first phase of a request: what copies and files hold of its prompt comes back, before the rest is computed.

A stretch a step, beside the other requests' decoding; files are read by a thread. So a slow disk delays only who needs
it, and for no longer than computing would take.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_edge.engine.cost_model import CostModel
from qwen_edge.engine.misses import Misses
from qwen_edge.engine.sequence import Sequence
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.kv.restore import Restore

_LEAST_PATIENCE = 0.25  # seconds: a working disk reads a stretch in less
_NAP = 0.02  # seconds of waiting for the disk at once: the engine hears no message meanwhile


class Restoring:
    """All requests that are in this phase. Used by the engine's thread."""

    def __init__(
        self, cells: KvCacheManager, pace: CostModel, misses: Misses, batch: int, clock: Callable[[], float]
    ) -> None:
        self._cells = cells
        self._pace = pace
        self._misses = misses
        self._batch = batch
        self._clock = clock
        self._restores: dict[Sequence, Restore] = {}

    def begin(self, sequence: Sequence, *, asked: bool) -> None:
        """The sequence has just got its place; `asked`: for the first time, and because a client asked."""
        assert sequence.seq_id is not None
        self._restores[sequence] = Restore(
            self._cells,
            sequence.seq_id,
            sequence.tokens,
            patience=self._patience,
            clock=self._clock,
            asked=asked,
            disk=self._cells.disk,
        )

    def drop(self, sequence: Sequence) -> None:
        """The sequence has lost its place, or has ended."""
        if restore := self._restores.pop(sequence, None):
            restore.drop()

    def done_with(self, running: list[Sequence]) -> list[Sequence]:
        """Those that are not in this phase: what they lack has to be computed."""
        return [one for one in running if one not in self._restores]

    def step(self, running: list[Sequence]) -> None:
        """Bring back a stretch for one of the requests, if one is there. A request for which nothing more comes leaves
        this phase, and it is noted why the rest of its prompt has to be computed. Raises EngineError."""
        for sequence, restore in list(self._restores.items()):
            before = restore.held
            more = restore.step()
            sequence.computed = restore.held
            if not more:
                del self._restores[sequence]
                self._explain(sequence, running)
            if restore.held > before:
                break

    def _explain(self, sequence: Sequence, running: list[Sequence]) -> None:
        """Why its prompt has to be computed, if that might have been spared. What others compute at this moment is as
        good as there: it is shared when it is done."""
        if sequence.ran == 0 and sequence.first_token_at is None:
            before = running[: running.index(sequence)]
            coming = [min(one.prompt_length, sequence.in_common(one)) for one in before]
            sequence.missed = self._misses.explain(sequence.prompt, max(sequence.computed, *coming, 0))

    def wait(self) -> float:
        """Wait a moment for the disk, while there is nothing else to do; returns the seconds that took."""
        began = self._clock()
        if reads := [one.waiting for one in self._restores.values() if one.waiting]:
            reads[0].wait(_NAP)
        return self._clock() - began

    def _patience(self, tokens: int) -> float:
        """The seconds that computing so many tokens takes."""
        batches = tokens / self._batch
        return max(_LEAST_PATIENCE, batches * self._pace.seconds(self._batch, 0))
