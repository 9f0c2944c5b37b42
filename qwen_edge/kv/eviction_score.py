"""How much cells are worth keeping: Greedy-Dual-Size-Frequency (Cherkasova, HP Labs 1998)."""

from __future__ import annotations

_DEPTH = 2048  # position at which a token costs about twice as much as the first one: attention reads all before it


def score(age: float, hits: int, depth: int) -> float:
    """age + hits * cost / size, where `age` is the score of what went last. Cost and size both grow with the number of
    tokens, so that cost / size depends on `depth` alone: the number of tokens before the stretch."""
    return age + hits * (1 + depth / _DEPTH)
