"""Which cells go when there are too few, and which of them are copied to the host tier before.

Cells that only parked sequences hold may go. The least worth goes first (`eviction_score`), pinned prompts last, and of
a stretch of tokens its end, as no cell is of use without those before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwen_edge.kv.allocation import Allocation
from qwen_edge.kv.cell_store import PIECE, CellStore
from qwen_edge.kv.eviction_score import score
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.radix import Node, common_prefix
from qwen_edge.kv.tiers import Tiers
from qwen_edge.protocol.messages import Caller

_PIECES = 4  # copied between two steps, 15 ms each: as long as parked cells stay, every token takes longer
_OPENING = 4  # tokens at the end of a prompt that open the answer; the next prompt does not contain them


class Eviction:
    """While some sequences are open, parked ones keep no more than the store's `spare` cells for themselves. Used by
    the engine's thread."""

    def __init__(self, store: CellStore, allocation: Allocation, tiers: Tiers, pins: Pins) -> None:
        self._allocation = allocation
        self._tiers = tiers
        self._store = store
        self._pins = pins
        self._spare = store.spare
        self._age = 0.0  # the score of what went last

    @property
    def leaving(self) -> int:
        """Cells that parked sequences hold and may not keep while other sequences are open."""
        return max(0, self._allocation.parked - self._spare) if self._allocation.any_open else 0

    @property
    def will_evict(self) -> bool:
        """Whether parked cells will have to go as soon as a sequence is open."""
        return not self._allocation.any_open and self._allocation.parked > self._spare

    def touch(self, sequence: int, length: int, caller: Caller, hits: int = 1) -> None:
        """The caller has asked `hits` times for the first `length` tokens of a sequence, and not for what follows
        them."""
        self._allocation.tree.part(sequence, length)
        for node in self._allocation.tree.path(sequence):
            if node.depth < length:
                node.hits[caller.scope] = node.hits.get(caller.scope, 0) + hits
                node.score = score(self._age, max(1, sum(node.hits.values())), node.depth)

    def reserve(self, count: int) -> bool:
        """Make `count` cells free. False if open sequences hold too many: no cell has gone then."""
        short = count - (self._allocation.size - self._allocation.used)
        if short > 0 and self._allocation.parked < short:
            return False
        while short > 0:
            self._trim_least(short)
            short = count - (self._allocation.size - self._allocation.used)
        return True

    def tidy(self) -> None:
        """Between two steps: let cells go that are `leaving`; only a few pieces that must be copied, unless the next
        step needs the room."""
        copied = 0
        while (leaving := self.leaving) and (copied < _PIECES or self._allocation.used + PIECE > self._store.room):
            copied += self._trim_least(leaving)

    def drop_outdated(self, tokens: Sequence[int], caller: Caller) -> None:
        """These tokens are about to be computed ahead. Where parked cells have a price, the caller's answers that
        differ from these tokens (templates show an answer otherwise than it was generated) go now, and not when the
        next request runs."""
        if self._spare >= self._allocation.size:
            return
        for sequence, prompt in list(self._allocation.prompts.items()):
            held = self._allocation.tokens(sequence)
            common = common_prefix(held, tokens) if self._allocation.owners.is_theirs(sequence, caller) else 0
            if max(prompt - _OPENING, prompt // 2) <= common < min(len(held), len(tokens)):
                if self._tiers.host_tier.needed_by_copies(held) > common:
                    self._tiers.copy_missing(self._allocation.tree.end(sequence), common, [caller])
                self._allocation.cut(sequence, common)

    def free_sequence(self) -> bool:
        """Give up a parked sequence, so that its number can be used: one whose tokens another one of its owner holds
        as well, or else the one of the least worth. False if all are open."""
        is_alone = self._allocation.owners.is_alone
        ends = self._allocation.parked_ends()
        least = min(ends, key=lambda end: (is_alone(*end), self._is_pinned(end[1]), end[1].score), default=None)
        if least is None:
            return False
        sequence, node = least
        if own := [one for one in self._allocation.tree.path(sequence) if is_alone(sequence, one)]:
            self._age = max(self._age, node.score)
            self._tiers.copy_missing(node, own[-1].depth, [self._allocation.owners[sequence]])
        self._allocation.give_up(sequence)
        return True

    def _trim_least(self, short: int) -> bool:
        """Take `short` cells, or a piece, from the end of the stretch of the least worth that only parked sequences
        hold; what has to be copied goes piece by piece. True if cells had to be copied."""
        ends = (node for node in self._allocation.parked_nodes() if not node.children)
        node = min(ends, key=lambda node: (self._is_pinned(node), node.score))
        self._age = max(self._age, node.score)
        length = node.end - min(len(node.tokens), max(short, PIECE))
        callers = self._allocation.owners.of(node)
        if self._tiers.missing(node, length, callers):
            length = max(length, (min(node.end, self._allocation.prompt_length(node)) - 1) // PIECE * PIECE)
        copied = self._tiers.copy_missing(node, length, callers)
        for sequence in list(node.sequences):
            self._allocation.cut(sequence, length)
        return copied

    def _is_pinned(self, node: Node) -> bool:
        if not self._pins.any:
            return False
        tokens = self._allocation.tree.tokens(node)[: self._allocation.prompt_length(node)]
        return any(self._pins.holds(tokens, caller.owner) for caller in self._allocation.owners.of(node))
