"""The sequences that the engine works on, and which of them have a place in the KV cache.

A place is a sequence number of the KV cache. `engine/loop.py` decides who gets one and who loses it.
"""

from __future__ import annotations

from qwen_edge.engine.restoring import Restorer
from qwen_edge.engine.sequence import Placed, Sequence, Waiting
from qwen_edge.kv.manager import KvCacheManager


class Places:
    """All sequences that are not finished. While `crowded`, a sequence has lost its place because there were not cells
    enough, and no sequence should enter beside the placed ones before one of them has finished. Used by the engine's
    thread."""

    def __init__(self, kv_cache: KvCacheManager, restorer: Restorer) -> None:
        self._kv_cache, self._restorer = kv_cache, restorer
        self._sequences = list[Sequence]()  # those with a place in the order in which they got it
        self.crowded = False

    @property
    def sequences(self) -> list[Sequence]:
        """All of them: a new list."""
        return self._sequences[:]

    @property
    def placed(self) -> list[Sequence]:
        """Those with a place, in the order in which they got it."""
        return [one for one in self._sequences if isinstance(one.phase, Placed)]

    @property
    def waiting(self) -> list[Sequence]:
        """Those without a place."""
        return [one for one in self._sequences if isinstance(one.phase, Waiting)]

    def add(self, sequence: Sequence) -> None:
        """A new sequence, which waits for a place."""
        self._sequences.append(sequence)

    def enter(self, sequence: Sequence, *, for_client: bool) -> None:
        """Give a waiting sequence a place, with the cells of its tokens that the KV cache has, and begin to load those
        of copies and files. `for_client`: a client asks for these tokens once more, which keeps them longer."""
        opened = self._kv_cache.open(sequence.tokens, sequence.request.caller, for_client=for_client)
        assert opened, "the cache has more sequences than there are places"
        seq_id, held = opened
        sequence.enter(seq_id, held, self._restorer.restore(seq_id, sequence.tokens, for_client=for_client))
        self._sequences.remove(sequence)
        self._sequences.append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Let a placed sequence wait. Its cells stay in the KV cache for as long as nobody needs them."""
        seq_id, computed = sequence.seq_id, sequence.tokens[: sequence.computed]
        sequence.give_way()
        self._kv_cache.park(seq_id, computed, sequence.prompt_length, requests=0)

    def put_back_for_lack_of_cells(self, sequence: Sequence) -> None:
        """As `put_back`. If others are still placed, it is `crowded` then."""
        self.put_back(sequence)
        self.crowded = bool(self.placed)

    def finish(self, sequence: Sequence) -> None:
        """End a sequence in any phase. Its cells stay in the KV cache for as long as nobody needs them."""
        placed = sequence.phase if isinstance(sequence.phase, Placed) else None
        sequence.finish()
        self._sequences.remove(sequence)
        if not placed:
            return
        # a text may end before the last of the guesses that came true
        sequence.computed = min(sequence.computed, len(sequence.tokens))
        self._kv_cache.shrink(placed.seq_id, sequence.computed)
        request, prompt = sequence.request, sequence.tokens[: sequence.prompt_length]
        if request.pin_seconds:
            self._kv_cache.pins.pin(prompt, request.pin_seconds, request.caller)
        self._kv_cache.park(
            placed.seq_id, sequence.tokens[: sequence.computed], sequence.prompt_length, requests=request.asked
        )
        self.crowded = False

    def abandon(self) -> list[Sequence]:
        """End all sequences, and leave their cells as they are: the KV cache must not be used any more. Returns the
        sequences."""
        ended, self._sequences = self._sequences, []
        for sequence in ended:
            sequence.finish()
        return ended
