"""Prompts that somebody wants kept for a time: what they begin with goes last, and is written down at once."""

from __future__ import annotations

import contextlib
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from qwen_edge.kv.radix import common_prefix

_MOST = 64


class _Pin(msgspec.Struct, frozen=True):
    """Four bytes a token, and the time of the wall clock, in seconds, until which they are pinned."""

    tokens: bytes
    until: float


class Pins:
    """Used by the engine's thread. What is pinned in a file outlives it."""

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._pins = [(list(array("i", pin.tokens)), pin.until) for pin in _read(file)]

    def pin(self, tokens: Sequence[int], seconds: float) -> None:
        """Keep these tokens for so long from now; 0 is as if they had never been pinned. Of too many pins, the one that
        would end first does."""
        pins = [(held, until) for held, until in self._pins if held != list(tokens) and until > self._clock()]
        if seconds > 0:
            pins.append((list(tokens), self._clock() + seconds))
        self._pins = sorted(pins, key=lambda pin: pin[1])[-_MOST:]
        self._write()

    def until(self, tokens: Sequence[int]) -> float:
        """When the last pin of a prompt that begins with these tokens ends; 0 if there is none."""
        count, now = len(tokens), self._clock()
        ends = (until for held, until in self._pins if until > now and common_prefix(held, tokens) == count)
        return max(ends, default=0.0) if count else 0.0

    @property
    def any(self) -> bool:
        return bool(self._pins)

    def holds(self, tokens: Sequence[int]) -> bool:
        """Whether somebody wants them kept now."""
        return bool(self._pins) and self.until(tokens) > 0

    def _write(self) -> None:
        if self._file is None:
            return
        draft = self._file.with_suffix(".json.new")
        pins = [_Pin(array("i", tokens).tobytes(), until) for tokens, until in self._pins]
        with contextlib.suppress(OSError):  # they hold as long as the engine lives
            draft.write_bytes(msgspec.json.encode(pins))
            draft.replace(self._file)


def _read(file: Path | None) -> list[_Pin]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[_Pin]) if file else []
    except (OSError, msgspec.MsgspecError):
        return []
