"""Packs samples that share beginnings into one row: a tree of tokens instead of a list of texts.

Answers of one scene share its system prompt and tools, answers of one dialogue its history.
Each shared token is computed once. In depth-first order the descendants of a node are the
nodes up to its `end`, so attention to ancestors is `j <= i < end[j]`; a node's position is
its depth. A row costs a third of what its samples cost apart.

    system+tools ─┬─ user A ─┬─ <think>… call        loss on answers only: the edges into
                  │          └─ call, result ─ …     nodes that some sample has as target
                  └─ user B ─── <think>… answer
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tree:
    """The row while it is built, one list entry a node."""

    tokens: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    target: list[bool] = field(default_factory=list)


def grow(sequences: Iterable[tuple[Sequence[int], int]]) -> Tree:
    """A tree from token sequences, each with the index where its answer begins."""
    tree, path, before = Tree(), list[int](), list[int]()
    for tokens, answer in sorted((list(tokens), answer) for tokens, answer in sequences):
        shared = _common(before, tokens)
        for node in path[shared:]:
            tree.end[node] = len(tree.tokens)
        del path[shared:]
        for depth in range(shared, len(tokens)):
            tree.parent.append(path[-1] if path else -1)
            path.append(len(tree.tokens))
            tree.tokens.append(tokens[depth])
            tree.depth.append(depth)
            tree.end.append(0)
            tree.target.append(False)
        for node in path[answer:]:
            tree.target[node] = True
        before = tokens
    for node in path:
        tree.end[node] = len(tree.tokens)
    return tree


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
