"""Rows of random tokens in which pieces come again: the first thing the model is taught is to copy.

A tool's name, its parameters and what the user said are copied from the prompt, so nothing
else is learned before that is. The rows tune the circuit that `wiring` lays, for every token
of the vocabulary, so that rare tokens are copied as well as common ones.
"""

from collections.abc import Iterator
from random import Random

from .tree import Tree


def copying_trees(seed: int, vocab: int, length: int = 320) -> Iterator[Tree]:
    """Endless rows; the loss is on every token of a piece that was there before, but its first."""
    rng = Random(seed)
    while True:
        pieces = [[rng.randrange(vocab) for _ in range(rng.randint(2, 8))] for _ in range(rng.randint(8, 24))]
        tokens, target, seen = list[int](), list[bool](), set[int]()
        while len(tokens) < length:
            number = rng.randrange(len(pieces))
            tokens += pieces[number]
            target += [False] + [number in seen] * (len(pieces[number]) - 1)
            seen.add(number)
        count = len(tokens)
        yield Tree(tokens, list(range(count)), [count] * count, list(range(-1, count - 1)), target)
