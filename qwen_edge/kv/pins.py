"""Prompts that somebody wants kept for a time: their cells go last and are written to files at once.

A pin belongs to its owner. The pin of an admin is public: everybody may use the cells of the pinned prompt.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from qwen_edge.kv.note import Note
from qwen_edge.kv.radix import common_prefix
from qwen_edge.protocol.messages import EVERYBODY, Caller

_MOST = 64  # of one owner
_TOKEN = 4  # bytes
_LATEST = 1e12  # seconds: a pin that ends later was not made by us


class _Pin(msgspec.Struct, frozen=True):
    """As it is written: four bytes a token, the time of the wall clock, in seconds, at which the pin ends, and its
    owner."""

    tokens: bytes
    until: float
    owner: str = ""
    public: bool = False

    def __post_init__(self) -> None:
        if len(self.tokens) % _TOKEN:
            raise ValueError("the tokens of a pin are cut off")
        if not (math.isfinite(self.until) and 0 <= self.until < _LATEST):
            raise ValueError("a pin has no end")


class _Held(NamedTuple):
    tokens: list[int]
    until: float
    owner: str
    public: bool


class Pins:
    """All pins. Used by the engine's thread. Pins that are kept in a note outlive the engine."""

    def __init__(self, note: Note | None = None, clock: Callable[[], float] = time.time) -> None:
        self._note = note
        self._clock = clock
        kept = note.read(list[_Pin]) if note else None
        self._pins = [_Held(list(array("i", pin.tokens)), pin.until, pin.owner, pin.public) for pin in kept or []]

    def pin(self, tokens: Sequence[int], seconds: float, caller: Caller = EVERYBODY) -> None:
        """Keep these tokens for `seconds` from now. 0 ends the caller's pin of them; for an admin, the pins of
        all. If one owner has too many pins, the one that would end first is dropped."""
        same, ends = list(tokens), caller.admin and seconds <= 0
        kept = [pin for pin in self._now(None) if pin.tokens != same or not (ends or pin.owner == caller.owner)]
        mine = [pin for pin in kept if pin.owner == caller.owner]
        if seconds > 0:
            public = caller.admin and bool(caller.owner)  # without keys there are no others
            mine.append(_Held(same, self._clock() + seconds, caller.owner, public))
        mine.sort(key=lambda pin: pin.until)
        self._pins = [*(pin for pin in kept if pin.owner != caller.owner), *mine[-_MOST:]]
        self.write()

    def until(self, tokens: Sequence[int], owner: str | None = None) -> float:
        """When the last pin of a prompt that begins with these tokens ends; 0 if there is none. Only pins of `owner`
        and public ones count; None: all."""
        count = len(tokens)
        ends = (pin.until for pin in self._now(owner) if common_prefix(pin.tokens, tokens) == count)
        return max(ends, default=0.0) if count else 0.0

    @property
    def any(self) -> bool:
        return bool(self._pins)

    def holds(self, tokens: Sequence[int], owner: str | None = None) -> bool:
        """Whether a pin of these tokens has not ended: one of `owner` or a public one; None: any."""
        return bool(self._pins) and self.until(tokens, owner) > 0

    def reach(self, tokens: Sequence[int], owner: str | None = None) -> int:
        """How many of these tokens, from the beginning, are pinned: by `owner` or publicly; None: by anybody."""
        return max((common_prefix(pin.tokens, tokens) for pin in self._now(owner)), default=0)

    def public(self, tokens: Sequence[int]) -> int:
        """How many of these tokens, from the beginning, everybody may use."""
        return max((common_prefix(pin.tokens, tokens) for pin in self._now(None) if pin.public), default=0)

    def written(self, seconds: float) -> bool:
        """Whether the pins are in their note; waits for that, but no longer than `seconds`. Pins that are not there end
        with the engine."""
        return self._note is not None and self._note.written(seconds)

    def write(self) -> None:
        """Have the note written by the writer's thread."""
        if self._note:
            pins = [_Pin(array("i", pin.tokens).tobytes(), pin.until, pin.owner, pin.public) for pin in self._pins]
            self._note.write(msgspec.json.encode(pins))

    def _now(self, owner: str | None) -> Iterator[_Held]:
        """The pins that have not ended: those of `owner` and the public ones; None: all."""
        now = self._clock()
        return (pin for pin in self._pins if pin.until > now and (owner is None or pin.public or pin.owner == owner))
