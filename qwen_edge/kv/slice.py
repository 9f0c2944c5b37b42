"""The parts of a batch that the model computes at once."""

from __future__ import annotations

import collections.abc
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive tokens of one sequence, the first at `position`. `logits`: for how many of them, the last ones, the
    logits are wanted."""

    sequence: int
    position: int
    tokens: collections.abc.Sequence[int]
    logits: int
