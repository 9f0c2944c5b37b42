"""The KV cache manager: what the engine calls. Its three parts say the rest.

- `allocation`: who holds which cells, and what is shared.
- `eviction`: what goes when there are too few cells.
- `tiers`: what is copied to memory and written to files, from where `restore` brings it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qwen_edge.kv.allocation import Allocation
from qwen_edge.kv.cell_store import CellStore
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.eviction import Eviction
from qwen_edge.kv.host_tier import Copy
from qwen_edge.kv.model_id import ModelId
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.tiers import Tiers
from qwen_edge.protocol.messages import EVERYBODY, Caller


class KvCacheManager:
    """Of the cells in one store. `disk` keeps what is asked for again. Used by the engine's thread."""

    def __init__(self, store: CellStore, disk: DiskTier | None = None, *, model_id: ModelId) -> None:
        """All cells are computed with `model_id`. Raises ValueError for a disk tier that another manager uses."""
        if disk:
            disk.serve(model_id)
        self.disk = disk
        self.pins = disk.pins if disk else Pins()
        self._store = store
        self._allocation = Allocation(store, self.pins)
        self._tiers = Tiers(store, self._allocation, self.pins, disk)
        self._eviction = Eviction(store, self._allocation, self._tiers, self.pins)
        self.host_tier = self._tiers.host_tier

    @property
    def size(self) -> int:
        return self._allocation.size

    @size.setter
    def size(self, cells: int) -> None:
        self._allocation.size = cells

    @property
    def used(self) -> int:
        """Cells that any sequence holds."""
        return self._allocation.used

    @property
    def available(self) -> int:
        """How many cells could be free: all but those that open sequences hold."""
        return self.size - self.used + self._allocation.parked

    @property
    def leaving(self) -> int:
        """Cells that parked sequences hold and may not keep while other sequences are open."""
        return self._eviction.leaving

    @property
    def writing(self) -> bool:
        """Whether a file is being written."""
        return self.disk is not None and self.disk.busy

    # -- a request, from its first step to its last --

    def open(
        self, tokens: Sequence[int], caller: Caller = EVERYBODY, *, for_client: bool = True
    ) -> tuple[int, int] | None:
        """A sequence of this caller for these tokens, and how many of them it holds already (never all: the last is
        computed anew, for its logits); more may come back from the tiers (`restore`). None if all sequences are open.
        `for_client`: a client has asked for the tokens, which are worth more from now on; else they are computed
        ahead."""
        self._tiers.unplan()
        length, holder = self._allocation.owners.match(tokens, caller.scope)
        if holder is not None and for_client:
            self._eviction.touch(holder, length, caller)
        if self._allocation.is_out_of_sequences and not self._eviction.free_sequence():
            return None
        sequence = self._allocation.open(tokens, caller)
        return sequence, self._allocation.held(sequence)

    def adopt(self, sequence: int, tokens: Sequence[int]) -> int:
        """Share what other sequences have computed of these tokens meanwhile; returns how many the sequence holds."""
        return self._allocation.adopt(sequence, tokens)

    def bring_back(self, sequence: int, tokens: Sequence[int], copy: Copy, cells: Any, until: int) -> bool:
        """The sequence holds the first `until` of these tokens: those that it lacked come from the cells of a copy.
        False if there are not cells enough, or no memory for them."""
        if not self.reserve(copy.size):
            return False
        # for all that may come back, not for this copy alone: a cache grows the quicker the less it holds
        if not self._store.make_room(min(self.size, self.used + max(copy.size, len(tokens) - copy.start))):
            return False
        self._allocation.load(sequence, tokens[:until], cells)
        return True

    def reserve(self, count: int) -> bool:
        """Make `count` cells free. False if open sequences hold too many: no cell has gone then."""
        return self._eviction.reserve(count)

    def compute(self, sequence: int, length: int) -> None:
        """The sequence holds its first `length` tokens now, the new ones in cells of its own."""
        self._allocation.compute(sequence, length)

    def shrink(self, sequence: int, length: int) -> None:
        """The sequence gives up the cells behind its first `length` tokens, which it has not published."""
        self._allocation.shrink(sequence, length)

    def publish(self, sequence: int, tokens: Sequence[int]) -> None:
        """Let other sequences share what this one holds, which is these tokens."""
        self._allocation.publish(sequence, tokens)

    def park(self, sequence: int, tokens: Sequence[int], prompt: int, *, requests: int = 1) -> None:
        """The request is over, or waits again. These tokens stay until their cells are needed. After that, copies are
        kept of the prompt, which is the first `prompt` of them. `requests`: for how many requests of clients this one
        counts. If the memory of the model shares no prefixes, the cells are of no use to any other request and are free
        at once."""
        if not self._store.memory.shares_prefixes:
            self._allocation.close(sequence)
            return
        caller = self._allocation.owners[sequence]
        self._allocation.park(sequence, tokens, prompt)
        self._eviction.touch(sequence, len(tokens), caller, requests)
        self._allocation.unite(sequence)
        if self._eviction.will_evict:
            self._tiers.plan()

    def close(self, sequence: int) -> None:
        """Forget an open sequence and what only it holds."""
        self._allocation.close(sequence)

    # -- what is known --

    def scope(self, sequence: int) -> str | None:
        """Whose prompts an open sequence may use; None: those of all."""
        return self._allocation.owners[sequence].scope

    def shared(self, tokens: Sequence[int], scope: str | None = "") -> int:
        """How many of these tokens cost no cell: open sequences hold them, and they may be used."""
        return self._allocation.shared(tokens, scope)

    def known(self, tokens: Sequence[int], scope: str | None = "") -> int:
        """How many of these tokens, from the beginning, are in the cache and may be used."""
        return self._allocation.known(tokens, scope)

    def prompts(self) -> list[tuple[str, list[int]]]:
        """The owners and the prompts of parked sequences, without the few tokens at the end that ask for the answer."""
        return [(self._allocation.owners[one].owner, self._allocation.prompt(one)) for one in self._allocation.prompts]

    def drop_if(self, is_unwanted: Callable[[Sequence[int]], bool], owner: str | None = None) -> None:
        """Drop the parked sequences, of this owner or of all, whose prompts are unwanted."""
        self._allocation.drop_if(is_unwanted, owner)

    # -- beside the requests --

    def tidy(self) -> None:
        """Between two steps: let go of cells that are `leaving`: of a few, so that the next step is not late."""
        self._eviction.tidy()

    def drop_outdated(self, tokens: Sequence[int], caller: Caller = EVERYBODY) -> None:
        """These tokens are about to be computed ahead: answers of the caller that differ from them go now."""
        self._eviction.drop_outdated(tokens, caller)

    def prepare(self) -> bool:
        """While no sequence is open: copy a piece of what will have to go when one is. False if all is copied."""
        return self._tiers.prepare()

    def review(self) -> None:
        """Something was pinned: look through all that is remembered for what is to be written."""
        self._tiers.review()

    def write(self, least: int = 2) -> bool:
        """Between two requests: have a stretch written that was asked for at least `least` times and is in no file.
        False if there is none, or the disk is not ready."""
        return self._tiers.write(least)

    def leave(self, seconds: float, clock: Callable[[], float]) -> None:
        """The engine is about to stop: write what is remembered, also what was asked for only once, for no longer than
        `seconds`."""
        self._tiers.leave(seconds, clock)
