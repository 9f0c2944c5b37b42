"""Finds an engine process that takes more memory than planned. Leaks are slow, and a device runs for years.

While a KV cache grows, the old cache, the new cache and a copy exist for some seconds. So an engine counts as too large
only after it has been above its limit for a while.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

log = logging.getLogger(__name__)

_FACTOR, _MARGIN_BYTES = 1.25, 128 << 20  # beyond the plan: for fragmentation, and for what the plan leaves out


class MemoryWatch:
    """Watches one engine process after another. Used on the daemon's event loop. `memory` returns the bytes of a
    process, given its process id."""

    def __init__(
        self, limit: int | None, memory: Callable[[int], int], clock: Callable[[], float], seconds: float
    ) -> None:
        """`limit`: bytes that the engine may have; None: the plan and a margin. `seconds`: how long the engine may be
        above the limit."""
        self._configured = limit
        self._memory = memory
        self._clock = clock
        self._seconds = seconds
        self._since: float | None = None  # the time since which the engine has been above the limit
        self._limit = math.inf
        self.exceeded = False  # whether this engine has been above the limit for `seconds`

    def plan(self, pid: int, bytes_to_come: int) -> None:
        """An engine has loaded the model, and will need `bytes_to_come` more bytes."""
        planned = self._memory(pid) + bytes_to_come
        self.exceeded, self._since, self._limit = False, None, _FACTOR * planned + _MARGIN_BYTES
        if self._configured is not None and self._configured >= planned:
            self._limit = self._configured
        elif self._configured is not None:
            log.warning(
                "engine.memory_limit_bytes (%d) is less than the %d bytes that the engine needs, and is ignored: "
                "raise it, or lower engine.context",
                self._configured,
                planned,
            )

    def check(self, pid: int) -> None:
        """Measure the engine now."""
        size, now = self._memory(pid), self._clock()
        if size <= self._limit:
            self._since = None
            return
        self._since = now if self._since is None else self._since
        if now - self._since >= self._seconds and not self.exceeded:
            self.exceeded = True
            log.warning(
                "the engine takes %.0f MB, more than its limit of %.0f MB: it is replaced when no request is running",
                size / 1e6,
                self._limit / 1e6,
            )
