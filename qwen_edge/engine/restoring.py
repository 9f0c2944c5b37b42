"""The first phase of a sequence with a place: cells that copies and files hold are loaded, and not computed again.

One stretch is loaded in a step, beside the decoding of other sequences; a thread reads the files. So a slow disk delays
only the request that needs it, and for no longer than computing would take.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_edge.engine.cost_model import CostModel
from qwen_edge.engine.misses import Misses
from qwen_edge.engine.sequence import Restoring, Sequence
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.kv.restore import Restore

_LEAST_PATIENCE = 0.25  # seconds: a working disk reads a stretch in less
_NAP = 0.02  # seconds of waiting for the disk at once: the engine hears no message meanwhile


class Restorer:
    """Steps the sequences that are in this phase. Used by the engine's thread."""

    def __init__(
        self, kv_cache: KvCacheManager, cost: CostModel, misses: Misses, batch: int, clock: Callable[[], float]
    ) -> None:
        self._kv_cache = kv_cache
        self._cost = cost
        self._misses = misses
        self._batch = batch
        self._clock = clock

    def restore(self, seq_id: int, tokens: list[int], *, for_client: bool) -> Restore:
        """What is loaded for a sequence that gets its place. `for_client`: a client asked for these tokens, now for
        the first time."""
        return Restore(
            self._kv_cache,
            seq_id,
            tokens,
            patience=self._patience,
            clock=self._clock,
            for_client=for_client,
            disk=self._kv_cache.disk,
        )

    def step(self, placed: list[Sequence]) -> None:
        """Load a stretch for one of the placed sequences, if one is ready. A sequence for which nothing more is loaded
        leaves this phase, and it is noted why the rest of its prompt was not in the cache. Raises EngineError."""
        for sequence in placed:
            if not isinstance(sequence.phase, Restoring):
                continue
            restore = sequence.phase.restore
            before = restore.held
            more = restore.step()
            sequence.computed = restore.held
            if not more:
                sequence.restored()
                self._explain(sequence, placed[: placed.index(sequence)])
            if restore.held > before:
                break

    def wait(self, placed: list[Sequence]) -> float:
        """Wait a moment for the disk, as there is nothing else to do; returns the seconds that took."""
        began = self._clock()
        restores = [one.phase.restore for one in placed if isinstance(one.phase, Restoring)]
        if reads := [one.waiting for one in restores if one.waiting]:
            reads[0].wait(_NAP)
        return self._clock() - began

    def _explain(self, sequence: Sequence, earlier: list[Sequence]) -> None:
        """Note why a prompt has to be computed. Tokens that sequences placed `earlier` are computing count as cached:
        they are shared when they are computed."""
        if sequence.prompt_computed == 0 and not sequence.answering:
            coming = [min(one.prompt_length, sequence.in_common(one)) for one in earlier]
            sequence.missed = self._misses.explain(sequence.prompt, max(sequence.computed, *coming, 0))

    def _patience(self, tokens: int) -> float:
        """The seconds that computing this many tokens takes."""
        batches = tokens / self._batch
        return max(_LEAST_PATIENCE, batches * self._cost.seconds(self._batch, 0))
