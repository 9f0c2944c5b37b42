"""What computed tokens are worth: Greedy-Dual-Size-Frequency (Cherkasova, HP Labs 1998)."""

from __future__ import annotations

_DEPTH = 2048  # tokens before, where one costs about twice what the first one does: attention reads all of them


def score(age: float, hits: int, depth: int) -> float:
    """age + hits * cost / size, where the age is the worth of what went last. Cost and size both grow with the tokens,
    so what remains of cost / size is how deep they lie."""
    return age + hits * (1 + depth / _DEPTH)
