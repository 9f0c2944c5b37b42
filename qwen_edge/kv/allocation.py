"""Who holds which cells of the KV cache: open and parked sequences, and the cells that they share.

A sequence is open while a request uses it and parked afterwards: its cells stay for the next request that begins with
the same tokens. Tokens that an open sequence has computed are published into a radix tree. From then on every sequence
whose owner may use them (`owners`) can share their cells, and equal tokens of two sequences lie in the same cells,
whoever the owners are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qwen_edge.kv.cell_store import FEW, CellStore
from qwen_edge.kv.owners import Owners
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.radix import Node, Radix
from qwen_edge.protocol.messages import Caller


class Allocation:
    """Hands out the cells and the sequences of one store: no more cells than `size`, which may be lowered while memory
    is short. Decides nothing: `eviction` decides which cells have to go. Used by the engine's thread."""

    def __init__(self, store: CellStore, pins: Pins) -> None:
        self.size = store.size
        self.tree = Radix()
        self.owners = Owners(self.tree, pins)
        self.prompts: dict[int, int] = {}  # parked sequence -> how many of its tokens may well be asked for again
        self.changed = set[int]()  # parked sequences that may hold something which no file holds
        self._store = store
        self._open: dict[int, int] = {}  # open sequence -> how many tokens it holds
        self._inherited: dict[int, int] = {}  # open sequence -> how many of its tokens are a prompt that was given up
        self._unused = list(reversed(range(store.sequences)))

    @property
    def used(self) -> int:
        """Cells that any sequence holds."""
        return self.tree.cells + sum(length - self.tree.length(one) for one, length in self._open.items())

    @property
    def parked(self) -> int:
        """Cells that only parked sequences hold."""
        return sum(len(node.tokens) for node in self.parked_nodes())

    @property
    def any_open(self) -> bool:
        return bool(self._open)

    @property
    def is_out_of_sequences(self) -> bool:
        return not self._unused

    def parked_nodes(self) -> Iterator[Node]:
        """The stretches that only parked sequences hold; the tree must not change meanwhile."""
        return (node for node in self.tree.nodes() if node.sequences.isdisjoint(self._open))

    def parked_ends(self) -> Iterator[tuple[int, Node]]:
        """Every parked sequence and the stretch in which it ends; the tree must not change meanwhile."""
        return ((one, node) for node in self.tree.nodes() for one in self.tree.ends_in(node) if one not in self._open)

    def held(self, sequence: int) -> int:
        """How many tokens an open sequence holds."""
        return self._open[sequence]

    def known(self, tokens: Sequence[int], scope: str | None) -> int:
        """How many of these tokens, from the beginning, are in the cache and may be used in this scope."""
        return self.owners.match(tokens, scope)[0]

    def shared(self, tokens: Sequence[int], scope: str | None) -> int:
        """How many of these tokens cost no cell: open sequences hold them, and they may be used in this scope."""
        return self.owners.match(tokens, scope, self._open.keys())[0]

    def open(self, tokens: Sequence[int], caller: Caller) -> int:
        """A sequence of this caller for these tokens. There must be an unused one."""
        sequence = self._unused.pop()
        self._open[sequence] = 0
        self.owners.assign(sequence, caller)
        self.adopt(sequence, tokens)
        return sequence

    def adopt(self, sequence: int, tokens: Sequence[int]) -> int:
        """Share what other sequences have published of these tokens; returns how many the sequence holds now. Never all
        of them: the last token is computed anew, for its logits."""
        length, holder = self.owners.match(tokens[:-1], self.owners[sequence].scope)
        if holder is not None and length > self._open[sequence]:
            self._replace(sequence, holder, length)
            self.tree.insert(sequence, tokens[:length])
            self._open[sequence] = length
        return self._open[sequence]

    def compute(self, sequence: int, length: int) -> None:
        """The sequence holds its first `length` tokens now, the new ones in cells of its own."""
        self._open[sequence] = length

    def load(self, sequence: int, tokens: Sequence[int], saved: Any) -> None:
        """The sequence holds all of these tokens now: those that it did not hold come from saved cells."""
        self._store.load(saved, sequence, self._open[sequence], len(tokens))
        self._open[sequence] = len(tokens)
        self.publish(sequence, tokens)

    def shrink(self, sequence: int, length: int) -> None:
        """The sequence gives up the cells behind its first `length` tokens, which it has not published."""
        if length < self._open[sequence]:
            self._store.forget(sequence, length, self._open[sequence])
            self._open[sequence] = length

    def publish(self, sequence: int, tokens: Sequence[int]) -> None:
        """Let other sequences share what this one holds. Its own cells become free where another sequence holds the
        same tokens already. Does nothing if the memory of the model shares no prefixes."""
        if not self._store.memory.shares_prefixes:
            return
        assert len(tokens) == self._open[sequence]
        length, holder = self.tree.match(tokens)
        if holder is not None and length > self.tree.length(sequence):
            self._replace(sequence, holder, length)
        self.tree.insert(sequence, tokens)

    def park(self, sequence: int, tokens: Sequence[int], prompt: int) -> None:
        """The request is over, or waits again. The first `prompt` tokens may well be asked for again."""
        self.publish(sequence, tokens)
        del self._open[sequence]
        self.prompts[sequence] = max(prompt, self._inherited.pop(sequence, 0))

    def unite(self, sequence: int) -> None:
        """Of the sequences of one owner that hold the same tokens as a parked one, or a beginning of these, keep one:
        the longest."""
        nodes = list(self.tree.path(sequence))
        self.changed |= nodes[0].sequences - self._open.keys() if nodes else set()
        if not nodes or not self.owners.is_alone(sequence, nodes[0]):
            self.give_up(sequence)
            return
        for node in nodes[1:]:
            for other in self.tree.ends_in(node):
                if other not in self._open and self.owners.is_theirs(other, self.owners[sequence]):
                    self.give_up(other)

    def close(self, sequence: int) -> None:
        """Forget an open sequence and what only it holds."""
        self._store.forget(sequence, self.tree.length(sequence), self._open.pop(sequence))
        self.drop(sequence)

    def cut(self, sequence: int, length: int) -> None:
        """A parked sequence holds no more than its first `length` tokens. A sequence whose tokens are then all held by
        another one of the same owner is given up."""
        self._store.forget(sequence, length, self.tree.length(sequence))
        self.tree.cut(sequence, length)
        if sequence not in self.tree or not self.owners.is_alone(sequence, self.tree.end(sequence)):
            self.give_up(sequence)

    def give_up(self, sequence: int) -> None:
        """Drop a parked sequence. Where other sequences of its owner hold a part of its prompt, perhaps as a part of an
        answer, that part is a prompt of theirs from now on."""
        for node in self.tree.path(sequence):
            heirs = {one for one in node.sequences if one != sequence}
            heirs = {one for one in heirs if self.owners.is_theirs(one, self.owners[sequence])}
            for heir in heirs:
                prompts = self._inherited if heir in self._open else self.prompts
                prompts[heir] = max(prompts.get(heir, 0), min(self.prompts[sequence], node.end))
            if heirs:
                self.changed |= heirs - self._open.keys()
                break
        self.drop(sequence)

    def drop(self, sequence: int) -> None:
        """Forget a sequence and what only it holds; its prompt passes to no other."""
        self._store.forget(sequence, 0, self.tree.length(sequence))
        self.tree.cut(sequence)
        self.prompts.pop(sequence, None)
        self._inherited.pop(sequence, None)
        self.changed.discard(sequence)
        self.owners.release(sequence)
        self._unused.append(sequence)

    def drop_if(self, is_unwanted: Callable[[Sequence[int]], bool], owner: str | None) -> None:
        """Drop the parked sequences, of this owner or of all, whose prompts are unwanted."""
        for sequence, prompt in [(one, self.prompt(one)) for one in self.prompts]:
            if owner in (None, self.owners[sequence].owner) and is_unwanted(prompt):
                self.drop(sequence)

    def tokens(self, sequence: int) -> list[int]:
        """All that a sequence has published, which must not be nothing."""
        return self.tree.tokens(self.tree.end(sequence))

    def prompt(self, sequence: int) -> list[int]:
        """A parked sequence's prompt. If it parts from other sequences of its owner only in its last few tokens, it
        ends there: these tokens ask for the answer and are no part of the next prompt. A short prompt, which parts from
        others right at its beginning, is whole."""
        end, owner = min(self.prompts[sequence], self.tree.length(sequence)), self.owners[sequence]
        tokens = self.tokens(sequence)
        for node in self.tree.path(sequence):
            others = node.parent.sequences - node.sequences if node.parent else set()
            parts = any(self.owners.is_theirs(one, owner) for one in others)
            if max(FEW, end - FEW + 1) <= node.depth < end and parts:
                return tokens[: node.depth]
        return tokens[:end]

    def prompt_length(self, node: Node) -> int:
        """How many tokens, from the beginning, are the prompt of some parked sequence that holds this stretch."""
        return max((self.prompts[one] for one in node.sequences if one in self.prompts), default=0)

    def hits(self, sequence: int, position: int, scope: str | None) -> int:
        """How often what a sequence holds at this position was asked for, in this scope. The first few tokens, which
        many prompts have in common, count as those behind them."""
        position = max(position, FEW - 1)
        return next(node.hits.get(scope, 0) for node in self.tree.path(sequence) if node.depth <= position)

    def _replace(self, sequence: int, holder: int, length: int) -> None:
        """Of its first `length` tokens the sequence holds the holder's cells instead of its own unpublished ones."""
        start, held = self.tree.length(sequence), self._open[sequence]
        if start < min(held, length):
            self._store.forget(sequence, start, min(held, length))
        self._store.share(holder, sequence, start, length)
