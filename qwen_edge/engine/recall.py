"""The first phase of a request: what copies and files hold of its prompt comes back, before the rest is computed.

A stretch a step, beside the other requests' decoding; files are read by a thread. So a slow disk delays only who needs
it, and for no longer than computing would take.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_edge.engine.misses import Misses
from qwen_edge.engine.pace import Pace
from qwen_edge.engine.sequence import Sequence
from qwen_edge.kv.cells import Cells
from qwen_edge.kv.restore import Restore

_LEAST_PATIENCE = 0.25  # seconds: so long everybody can wait, and any disk in order needs less for a stretch
_NAP = 0.02  # seconds for which the engine hears no message while there is nothing to do but to wait for the disk


class Recall:
    """Of all requests that are in this phase. Used by the engine's thread."""

    def __init__(self, cells: Cells, pace: Pace, misses: Misses, batch: int, clock: Callable[[], float]) -> None:
        self._cells = cells
        self._pace = pace
        self._misses = misses
        self._batch = batch
        self._clock = clock
        self._restores: dict[Sequence, Restore] = {}

    def begin(self, sequence: Sequence, *, asked: bool) -> None:
        """It has just got its place, for the first time (`asked`) or again."""
        assert sequence.place is not None
        self._restores[sequence] = Restore(
            self._cells,
            sequence.place,
            sequence.tokens,
            patience=self._patience,
            clock=self._clock,
            asked=asked,
            disk=self._cells.disk,
        )

    def drop(self, sequence: Sequence) -> None:
        """It has lost its place, or is over."""
        if restore := self._restores.pop(sequence, None):
            restore.drop()

    def others(self, running: list[Sequence]) -> list[Sequence]:
        """Those of which the rest is to be computed."""
        return [one for one in running if one not in self._restores]

    def step(self, running: list[Sequence]) -> None:
        """Bring back a stretch of one of them, if any is there. Of whom nothing more comes is one of the `others` from
        then on, and knows why the rest has to be computed. Raises EngineError."""
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
