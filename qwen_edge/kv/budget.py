"""The limit of bytes written in a day, counted across restarts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from qwen_edge.kv.note import Note

_DAY = 86400.0
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Written(msgspec.Struct, frozen=True):
    day: _Count
    bytes: _Count


class Budget:
    """`per_day` bytes may be written in a day. The count of today's bytes is kept in a note. Used by the engine's
    thread."""

    def __init__(self, note: Note, per_day: int, clock: Callable[[], float]) -> None:
        """`clock` is the wall clock, in seconds."""
        self._note = note
        self._per_day = per_day
        self._clock = clock
        self._written = note.read(_Written) or _Written(0, 0)

    @property
    def left(self) -> int:
        return max(0, self._per_day - self._today)

    def spend(self, count: int) -> None:
        """`count` bytes are about to be written."""
        self._written = _Written(self._day, self._today + count)
        self.write()

    def write(self) -> None:
        """Have the note written by the writer's thread."""
        self._note.write(msgspec.json.encode(self._written))

    @property
    def _today(self) -> int:
        return self._written.bytes if self._written.day == self._day else 0

    @property
    def _day(self) -> int:
        return max(0, int(self._clock() // _DAY))
