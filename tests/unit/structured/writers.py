"""Models that write against the grain: noise, and logits that lean away from what an answer must be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from random import Random
from typing import Any

import numpy as np

from qwen_edge.structured.constraint import Constraint

Choose = Callable[[Any], int]
"""The next token, of those that are allowed (one bool each)."""


def written(constraint: Constraint, choose: Choose, most: int, ends: Collection[int]) -> Iterator[int]:
    """The tokens of an answer under the constraint, up to its end or to `most` tokens; the last one is an end token if
    the answer is finished. As the engine does it: forced tokens first, then one that the model chooses."""
    count = 0
    while count < most:
        forced = [] if constraint.done else constraint.forced()
        for token in forced[: most - count]:
            constraint.accept(token)
            yield token
        count += len(forced)
        if forced:
            continue
        if constraint.done:
            yield next(iter(ends))
            return
        allowed = constraint.allowed()
        assert allowed.any(), "nothing may follow"
        assert allowed[list(ends)].any() == constraint.complete, "an end is for complete answers"
        token = choose(allowed)
        assert allowed[token]
        yield token
        if token in ends:
            return
        constraint.accept(token)
        count += 1


def noise(seed: int, closing: Sequence[int]) -> Choose:
    """Any token, each as likely. Half of the time it is one of `closing` where they are allowed, as an answer of noise
    would hardly ever end."""
    rng = Random(seed)

    def choose(allowed: Any) -> int:
        liked = [token for token in closing if allowed[token]] if rng.random() < 0.5 else []
        candidates = np.flatnonzero(allowed)
        return rng.choice(liked) if liked else int(candidates[rng.randrange(len(candidates))])

    return choose


def leading_away(seed: int, closing: Sequence[int], tokens: int) -> Choose:
    """For so many tokens whatever does not close, and never an end. Then the tokens of `closing`, in their order,
    wherever one of them is allowed."""
    rng, closes, chosen = Random(seed), np.array(closing), 0

    def choose(allowed: Any) -> int:
        nonlocal chosen
        chosen += 1
        if chosen <= tokens:
            others = allowed.copy()
            others[closes] = False
            candidates = np.flatnonzero(others if others.any() else allowed)
        else:
            candidates = closes[allowed[closes]][:1]
            candidates = candidates if len(candidates) else np.flatnonzero(allowed)
        return int(candidates[rng.randrange(len(candidates))])

    return choose
