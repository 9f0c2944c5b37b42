"""The operations on the real cells that the KV cache manager needs; llama.cpp has them in `llama`."""

from __future__ import annotations

from typing import Any, Protocol

PIECE = 256  # cells that are copied, written or loaded at once: what takes no longer than may pass between two steps
FEW = 16  # tokens that are as quickly computed as loaded


class Cache(Protocol):
    """The real cells, of which the manager only knows positions and counts."""

    @property
    def room(self) -> int:
        """How many cells there are now: a cache may begin small and grow when more are needed."""

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """The target sequence also holds the source's cells from position `start` to before `end`."""

    def forget(self, sequence: int, start: int, end: int) -> None:
        """The sequence holds its cells from `start` to before `end` no more."""

    def save(self, sequence: int, start: int, end: int) -> Any:
        """A copy of the sequence's cells from `start` to before `end`. None if there is no memory for it."""

    def load(self, saved: Any, sequence: int, start: int, end: int) -> None:
        """The sequence holds the saved cells from position `start` to before `end`, in new cells."""

    def make_room(self, cells: int) -> bool:
        """`cells` cells will be held next, including those that are held now. False if there is no memory for them:
        then nothing has changed."""
