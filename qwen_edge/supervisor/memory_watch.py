"""How much memory the engine process may have, and whether it has more: leaks are slow, and a device runs for years.

While a KV cache grows, the old one, the new one and a copy exist for some seconds. So the engine only counts as too
large when it has been too large for a while.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

log = logging.getLogger(__name__)

_PART, _BYTES = 1.25, 128 << 20  # beyond what was planned: fragmentation, and what nobody has thought of


class MemoryWatch:
    """Watches one engine process after the other. Used on the daemon's event loop. `memory` returns the bytes that a
    process has, given its process id."""

    def __init__(
        self, limit: int | None, memory: Callable[[int], int], clock: Callable[[], float], seconds: float
    ) -> None:
        """The engine may have `limit` bytes of its own; None: somewhat more than is planned. It may have more than that
        for `seconds`."""
        self._limit = limit
        self._memory = memory
        self._clock = clock
        self._seconds = seconds
        self._since: float | None = None  # since when the engine has had more
        self._most = math.inf
        self.exceeded = False  # this engine has been too large for `seconds`

    def plan(self, pid: int, bytes_to_come: int) -> None:
        """An engine is ready, and will need `bytes_to_come` more bytes."""
        planned = self._memory(pid) + bytes_to_come
        self.exceeded, self._since, self._most = False, None, _PART * planned + _BYTES
        if self._limit is not None and self._limit >= planned:
            self._most = self._limit
        elif self._limit is not None:
            log.warning("engine.memory_limit_bytes is %d, and %d are needed: not observed", self._limit, planned)

    def check(self, pid: int) -> None:
        """Measure the engine now."""
        size, now = self._memory(pid), self._clock()
        if size <= self._most:
            self._since = None
            return
        self._since = now if self._since is None else self._since
        if now - self._since >= self._seconds and not self.exceeded:
            self.exceeded = True
            log.warning(
                "the engine has grown to %.0f MB, and may have %.0f: it is replaced as soon as nobody asks",
                size / 1e6,
                self._most / 1e6,
            )
