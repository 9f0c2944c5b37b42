"""A clock of the time in which this process could do anything.

A container is paused, a virtual machine copied, everything stopped by a signal: the monotonic clock goes on meanwhile
(only a suspend it leaves out), and afterwards the time of every answer would have run out.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class RunningClock:
    """Seconds, of which no more than `longest` pass between two calls: it is called so often that whoever needed more
    stood still. Used by one thread."""

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._longest = clock, longest
        self._last, self._stood = clock(), 0.0

    def __call__(self) -> float:
        now = self._clock()
        self._stood += max(0.0, now - self._last - self._longest)
        self._last = now
        return now - self._stood
