"""How much may be written in a day, over restarts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

_DAY = 86400.0


class _Written(msgspec.Struct, frozen=True):
    day: int
    bytes: int


class Budget:
    """`per_day` bytes. What has been written today stands in a file, a few bytes for each of ours."""

    def __init__(self, file: Path, per_day: int, clock: Callable[[], float]) -> None:
        """`clock` is that of the wall, in seconds."""
        self._file = file
        self._per_day = per_day
        self._clock = clock
        self._written = _read(file)

    @property
    def left(self) -> int:
        written = self._written.bytes if self._written.day == self._today else 0
        return max(0, self._per_day - written)

    def spend(self, count: int) -> None:
        written = self._written.bytes if self._written.day == self._today else 0
        self._written = _Written(self._today, written + count)
        draft = self._file.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk: what is written to it is told elsewhere
            draft.write_bytes(msgspec.json.encode(self._written))
            draft.replace(self._file)

    @property
    def _today(self) -> int:
        return int(self._clock() // _DAY)


def _read(file: Path) -> _Written:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Written)
    except (OSError, msgspec.MsgspecError):
        return _Written(0, 0)
