"""How much memory the engine may have, and whether it has more: leaks are slow, and a device runs for years.

While a KV cache grows there are two, and a copy, for some seconds: only what stays has grown.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

log = logging.getLogger(__name__)

_PART, _BYTES = 1.25, 128 << 20  # beyond what was planned: fragmentation, and what nobody has thought of


class MemoryWatch:
    """Of one engine after the other; used by the daemon. `memory` tells the bytes of a process by its number."""

    def __init__(
        self, limit: int | None, memory: Callable[[int], int], clock: Callable[[], float], seconds: float
    ) -> None:
        """`limit` bytes may be its own; None: somewhat more than is planned. For so many `seconds` it may have more."""
        self._limit = limit
        self._memory = memory
        self._clock = clock
        self._seconds = seconds
        self._since: float | None = None  # when it was first seen to have more
        self._most = math.inf
        self.seen = False  # this engine has grown too large

    def plan(self, pid: int, bytes_to_come: int) -> None:
        """An engine is ready, and will need so many bytes more."""
        planned = self._memory(pid) + bytes_to_come
        self.seen, self._since, self._most = False, None, _PART * planned + _BYTES
        if self._limit is not None and self._limit >= planned:
            self._most = self._limit
        elif self._limit is not None:
            log.warning("engine.memory_limit_bytes is %d, and %d are needed: not observed", self._limit, planned)

    def look(self, pid: int) -> None:
        """See how large it is now."""
        size, now = self._memory(pid), self._clock()
        if size <= self._most:
            self._since = None
            return
        self._since = now if self._since is None else self._since
        if now - self._since >= self._seconds and not self.seen:
            self.seen = True
            log.warning(
                "the engine has grown to %.0f MB, and may have %.0f: it is replaced as soon as nobody asks",
                size / 1e6,
                self._most / 1e6,
            )
