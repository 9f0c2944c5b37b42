"""Who owns each sequence of the KV cache, and which cells of other owners it may use.

An owner may use the cells of tokens that it has sent. Others may not, even where their own tokens are in the same
cells: a prompt that is answered sooner would tell that somebody else has sent this text. What an admin has pinned is
for all.
"""

from __future__ import annotations

from collections.abc import Set

from qwen_edge.kv.pins import Pins
from qwen_edge.kv.radix import Node, Radix, Tokens
from qwen_edge.protocol.messages import Caller


class Owners:
    """The owners of open and parked sequences. Used by the engine's thread."""

    def __init__(self, tree: Radix, pins: Pins) -> None:
        self._tree = tree
        self._pins = pins
        self._callers: dict[int, Caller] = {}

    def __getitem__(self, sequence: int) -> Caller:
        return self._callers[sequence]

    def assign(self, sequence: int, caller: Caller) -> None:
        """The sequence belongs to this caller from now on."""
        self._callers[sequence] = caller

    def release(self, sequence: int) -> None:
        """The sequence belongs to nobody."""
        self._callers.pop(sequence, None)

    def match(self, tokens: Tokens, scope: str | None, among: Set[int] | None = None) -> tuple[int, int | None]:
        """The longest beginning of `tokens` that some sequence holds (one of `among`, if given) and that may be used in
        this scope: its length, and a sequence that holds it."""
        if scope is None:
            return self._tree.match(tokens, among)
        theirs = {one for one, caller in self._callers.items() if caller.owner == scope}
        own = self._tree.match(tokens, theirs if among is None else theirs & among)
        public = self._pins.public(tokens) if len(theirs) < len(self._callers) else 0
        return max(own, self._tree.match(tokens[:public], among), key=lambda found: found[0])

    def of(self, node: Node) -> list[Caller]:
        """The callers whose sequences hold a stretch, each owner once, in an order that is always the same."""
        return list({self._callers[one].owner: self._callers[one] for one in sorted(node.sequences)}.values())

    def is_alone(self, sequence: int, node: Node) -> bool:
        """Whether no other sequence of the same owner holds this stretch."""
        owner = self._callers[sequence].owner
        return all(one == sequence or self._callers[one].owner != owner for one in node.sequences)

    def is_theirs(self, sequence: int, caller: Caller) -> bool:
        """Whether the sequence belongs to this caller's owner."""
        return self._callers[sequence].owner == caller.owner
