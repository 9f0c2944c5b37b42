"""What is run through the model at once is made of these."""

from __future__ import annotations

import collections.abc
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive tokens of one sequence, to be run at `position` and after; the logits of so many of the last ones are
    wanted."""

    sequence: int
    position: int
    tokens: collections.abc.Sequence[int]
    logits: int
