"""What the memory of a model can do: found out at load (`llama/kinds.py`), asked by whatever depends on it.

Only models with FULL memory are served; the others are refused at load, in a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MemoryKind:
    """`cuts_anywhere`: a sequence can give up its cells from any position on, so that tokens may be computed that are
    only guessed. `shares_prefixes`: a sequence can begin with the first cells of another one, up to any position.
    `saves_parts`: the cells between any two positions can be saved and loaded again."""

    name: Literal["full", "window", "state"]
    cuts_anywhere: bool
    shares_prefixes: bool
    saves_parts: bool


FULL = MemoryKind("full", cuts_anywhere=True, shares_prefixes=True, saves_parts=True)
"""Every token has a cell of its own."""
WINDOW = MemoryKind("window", cuts_anywhere=False, shares_prefixes=False, saves_parts=False)
"""Some layers keep only the latest tokens: what lies before a position may have gone."""
STATE = MemoryKind("state", cuts_anywhere=False, shares_prefixes=False, saves_parts=False)
"""Some layers keep one state for all tokens, from which no token can be removed."""
