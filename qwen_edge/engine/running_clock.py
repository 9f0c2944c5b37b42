"""A clock that counts only the time in which this process could run.

When a container is paused, a virtual machine is copied, or a signal stops the process, the monotonic clock goes on (it
leaves out a suspend only). Afterwards the time of every answer would have run out.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class RunningClock:
    """Seconds, of which at most `longest` pass between two calls. The engine calls the clock so often that more time
    means that the process stood still. Used by one thread."""

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._longest = clock, longest
        self._last, self._stood = clock(), 0.0

    def __call__(self) -> float:
        now = self._clock()
        self._stood += max(0.0, now - self._last - self._longest)
        self._last = now
        return now - self._stood
