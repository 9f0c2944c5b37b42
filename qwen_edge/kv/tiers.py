"""What is stored below the KV cache, and when: in the host tier (memory) and in the disk tier (files).

Cells are copied to the host tier when they have to go, or ahead of that while no request runs. They are written to
files between two requests, and when the engine stops (`saving`). They come back by `restore`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwen_edge.kv.allocation import Allocation
from qwen_edge.kv.cell_store import FEW, PIECE, CellStore
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.host_tier import Copy, HostTier
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.radix import Node
from qwen_edge.kv.saving import Saving
from qwen_edge.protocol.messages import Caller


class Tiers:
    """The host tier holds as many cells as the store says; none if its memory saves no parts. Used by the engine's
    thread."""

    def __init__(self, store: CellStore, allocation: Allocation, pins: Pins, disk: DiskTier | None) -> None:
        self.host_tier = HostTier(store.host_tier_cells if store.memory.saves_parts else 0, pins)
        self._store = store
        self._allocation = allocation
        self._saving = Saving(store, allocation, self.host_tier, pins, disk)
        self._to_copy: list[tuple[int, int, int]] = []  # sequence, start and end of the pieces to copy ahead

    def plan(self) -> None:
        """The prompts of parked sequences will have to go when the next request runs: they are to be copied ahead."""
        ends = [(one, min(end, self._allocation.tree.length(one))) for one, end in self._allocation.prompts.items()]
        self._to_copy = [(one, at, min(end, at + PIECE)) for one, end in ends for at in range(0, end, PIECE)][::-1]

    def unplan(self) -> None:
        """A request runs: nothing is copied ahead any more."""
        self._to_copy.clear()

    def prepare(self) -> bool:
        """While no sequence is open: copy a piece ahead. False if all are copied."""
        if not self._to_copy:
            return False
        sequence, start, end = self._to_copy.pop()
        tokens = self._allocation.tokens(sequence)[:end] if sequence in self._allocation.tree else []
        if tokens:
            caller = self._allocation.owners[sequence]
            if self.host_tier.wanted(tokens, start, caller.scope) == end - start:
                self._copy(sequence, tokens, start, caller)
        return True

    def missing(self, node: Node, start: int, callers: Sequence[Caller]) -> int:
        """How many of a stretch's tokens from position `start` on the host tier should hold for these callers and does
        not. Only prompts are worth a copy: the next prompt does not contain an answer as it was generated (templates
        drop the reasoning), and the cells of an answer lie scattered, so that copying takes as long as computing."""
        tokens = self._allocation.tree.tokens(node)[: self._allocation.prompt_length(node)]
        return max(self.host_tier.wanted(tokens, start, caller.scope) for caller in callers)

    def copy_missing(self, node: Node, start: int, callers: Sequence[Caller]) -> bool:
        """Copy what is `missing` in the host tier, piece by piece; False if that is nothing. The first piece begins at
        0 if only a few tokens lie before `start`: these tokens alone are not copied when they have to go, and the piece
        would be of no use without them."""
        start = 0 if start < FEW else start
        count, tokens = self.missing(node, start, callers), self._allocation.tree.tokens(node)
        sequence = next(iter(node.sequences))
        for at in (start, *range((start // PIECE + 1) * PIECE, start + count, PIECE)):
            end = min(start + count, (at // PIECE + 1) * PIECE)
            for caller in callers:
                if at < end and self.host_tier.wanted(tokens[:end], at, caller.scope):
                    self._copy(sequence, tokens[:end], at, caller)
        return count > 0

    def write(self, least: int) -> bool:
        """Have one stretch written to a file, of what was asked for at least `least` times. False if there is none."""
        return self._saving.write(least)

    def review(self) -> None:
        """Something was pinned: all that is remembered is looked through for what is to be written."""
        self._saving.review()

    def leave(self, seconds: float, clock: Callable[[], float]) -> None:
        """The engine is about to stop: write what is remembered, for no longer than `seconds`."""
        self._saving.leave(seconds, clock)

    def _copy(self, sequence: int, tokens: list[int], start: int, caller: Caller) -> None:
        """Copy the cells of these tokens from `start` on, which the sequence holds, for this caller, if there is memory
        for the copy. Copies that have to go for it are written, if they may be wanted again."""
        if (saved := self._store.save(sequence, start, len(tokens))) is None:
            return
        hits, whole_hits = (self._allocation.hits(sequence, at, caller.scope) for at in (start, len(tokens) - 1))
        copy = Copy(tokens, start, saved, hits, whole_hits=whole_hits, caller=caller)
        self._saving.copied(copy, self.host_tier.put(copy))
