"""Prompts that somebody wants kept for a time: what they begin with goes last, and is written down at once."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Sequence

import msgspec

from qwen_edge.kv.note import Note
from qwen_edge.kv.radix import common_prefix

_MOST = 64
_TOKEN = 4  # bytes
_LATEST = 1e12  # seconds: a pin that ends later was not made by us


class _Pin(msgspec.Struct, frozen=True):
    """Four bytes a token, and the time of the wall clock, in seconds, until which they are pinned."""

    tokens: bytes
    until: float

    def __post_init__(self) -> None:
        if len(self.tokens) % _TOKEN:
            raise ValueError("the tokens of a pin are cut off")
        if not (math.isfinite(self.until) and 0 <= self.until < _LATEST):
            raise ValueError("a pin has no end")


class Pins:
    """Used by the engine's thread. What is pinned in a note outlives it."""

    def __init__(self, note: Note | None = None, clock: Callable[[], float] = time.time) -> None:
        self._note = note
        self._clock = clock
        kept = note.read(list[_Pin]) if note else None
        self._pins = [(list(array("i", pin.tokens)), pin.until) for pin in kept or []]

    def pin(self, tokens: Sequence[int], seconds: float) -> None:
        """Keep these tokens for so long from now; 0 is as if they had never been pinned. Of too many pins, the one that
        would end first does."""
        pins = [(held, until) for held, until in self._pins if held != list(tokens) and until > self._clock()]
        if seconds > 0:
            pins.append((list(tokens), self._clock() + seconds))
        self._pins = sorted(pins, key=lambda pin: pin[1])[-_MOST:]
        self.write()

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

    def reach(self, tokens: Sequence[int]) -> int:
        """How many of these tokens, from the beginning, somebody wants kept now."""
        now = self._clock()
        return max((common_prefix(held, tokens) for held, until in self._pins if until > now), default=0)

    def written(self, seconds: float) -> bool:
        """Whether the pins are in their note, for which so long is waited: else they end with the engine."""
        return self._note is not None and self._note.written(seconds)

    def write(self) -> None:
        """Have the note written, beside the work."""
        if self._note:
            pins = [_Pin(array("i", tokens).tobytes(), until) for tokens, until in self._pins]
            self._note.write(msgspec.json.encode(pins))
