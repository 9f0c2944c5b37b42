"""A radix tree over token ids: what the cache holds, every shared beginning once.

A node is a stretch of tokens and the set of sequences that hold it. A sequence holds a whole path from the root, so
that the sequences of a node are always among those of its parent. Tokens that two sequences have in common, from the
beginning, are in one node and occupy the same cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

Tokens = Sequence[int]


class Node:
    """A stretch with `depth` tokens before it. `score` and `hits` are what eviction goes by; hits are counted for each
    scope, in which requests share what was computed."""

    __slots__ = ("children", "depth", "hits", "parent", "score", "sequences", "tokens")

    def __init__(self, tokens: list[int], parent: Node | None, sequences: set[int]) -> None:
        self.tokens = tokens
        self.parent = parent
        self.sequences = sequences
        self.children: dict[int, Node] = {}  # by their first token
        self.depth: int = parent.depth + len(parent.tokens) if parent else 0
        self.hits: dict[str | None, int] = {}
        self.score = 0.0

    @property
    def end(self) -> int:
        return self.depth + len(self.tokens)


class Radix:
    """The tree. Sequences are numbers. Used by one thread."""

    def __init__(self) -> None:
        self._root = Node([], None, set())
        self._ends: dict[int, Node] = {}
        self.cells = 0  # tokens in all nodes

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._ends

    def length(self, sequence: int) -> int:
        """How many tokens a sequence holds; 0 for one that is not in the tree."""
        return self._ends[sequence].end if sequence in self._ends else 0

    def end(self, sequence: int) -> Node:
        """The node in which a sequence ends."""
        return self._ends[sequence]

    def match(self, tokens: Sequence[int], among: Set[int] | None = None) -> tuple[int, int | None]:
        """The longest beginning of `tokens` that some sequence holds (one of `among`, if given): its length, and a
        sequence that holds it."""
        node, length, holder = self._root, 0, None
        while length < len(tokens) and (child := node.children.get(tokens[length])):
            if among is not None and child.sequences.isdisjoint(among):
                break
            shared = common_prefix(child.tokens, tokens[length : length + len(child.tokens)])
            length, holder = length + shared, next(iter(child.sequences))
            if shared < len(child.tokens):
                break
            node = child
        return length, holder

    def insert(self, sequence: int, tokens: Sequence[int]) -> None:
        """The sequence holds these tokens now; if it held any before, these begin with them."""
        node = self._root
        while node.end < len(tokens):
            child = node.children.get(tokens[node.end])
            if child is None:
                child = self._append(node, sequence, list(tokens[node.end :]))
            else:
                shared = common_prefix(child.tokens, tokens[child.depth : child.end])
                if shared < len(child.tokens):
                    child = self._split(child, shared)
            child.sequences.add(sequence)
            node = child
        if node is not self._root:
            self._ends[sequence] = node

    def cut(self, sequence: int, length: int = 0) -> None:
        """The sequence holds no more than its first `length` tokens; stretches that nobody holds any more are gone."""
        node = self._ends.pop(sequence, self._root)
        while node.parent and node.depth >= length:
            self._leave(node, sequence)
            node = node.parent
        if node.end > length:
            rest, node = node, self._split(node, length - node.depth)
            self._leave(rest, sequence)
        if node.parent:
            self._ends[sequence] = node

    def part(self, sequence: int, length: int) -> None:
        """Let a stretch end behind the first `length` tokens that the sequence holds, as the tokens before and behind
        that position may have different scores."""
        for node in self.path(sequence):
            if node.depth < length < node.end:
                self._split(node, length - node.depth)

    def path(self, sequence: int) -> Iterator[Node]:
        """The nodes that a sequence holds, from its end to the beginning."""
        node = self._ends.get(sequence, self._root)
        while node.parent:
            yield node
            node = node.parent

    def tokens(self, node: Node) -> list[int]:
        """All tokens from the beginning to the end of a node."""
        above, stretches, tokens = node, [node.tokens], list[int]()
        while above.parent:
            above = above.parent
            stretches.append(above.tokens)
        for stretch in reversed(stretches):
            tokens += stretch
        return tokens

    def nodes(self) -> Iterator[Node]:
        """All stretches; the tree must not change meanwhile."""
        nodes = list(self._root.children.values())
        while nodes:
            node = nodes.pop()
            nodes += node.children.values()
            yield node

    def ends_in(self, node: Node) -> list[int]:
        """The sequences that hold nothing behind this node."""
        return [sequence for sequence in node.sequences if self._ends[sequence] is node]

    def _append(self, node: Node, sequence: int, tokens: list[int]) -> Node:
        """A new stretch behind a node. If only this sequence holds the node and nobody has asked for it yet, the node
        grows instead: a node with hits must not, as nobody has asked for the new tokens."""
        self.cells += len(tokens)
        if node.sequences == {sequence} and not node.children and not any(node.hits.values()):
            node.tokens += tokens
            return node
        child = node.children[tokens[0]] = Node(tokens, node, set())
        return child

    def _split(self, node: Node, count: int) -> Node:
        """Make two of one node; returns the upper, with its first `count` tokens. Sequences end in the lower."""
        assert node.parent
        upper = Node(node.tokens[:count], node.parent, set(node.sequences))
        upper.hits, upper.score = dict(node.hits), node.score
        node.parent.children[upper.tokens[0]] = upper
        upper.children[node.tokens[count]] = node
        node.tokens, node.parent, node.depth = node.tokens[count:], upper, upper.end
        return upper

    def _leave(self, node: Node, sequence: int) -> None:
        node.sequences.discard(sequence)
        if not node.sequences:
            assert node.parent
            self.cells -= len(node.tokens)
            del node.parent.children[node.tokens[0]]


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two lists have in common from their beginning. Found by halving, as Python compares slices in
    C."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle)
    return low
