"""How long a loaded engine has had no request, and after how long without one it is unloaded."""

from __future__ import annotations

import math
from collections.abc import Callable


class IdleTime:
    """Used on the daemon's event loop. Times are in seconds, of `clock`."""

    def __init__(self, most: float, clock: Callable[[], float]) -> None:
        """`most`: the settings' limit, after which an engine without requests is unloaded; math.inf: never."""
        self._most, self._clock = most, clock
        self._wish: float | None = None
        self._last_use = clock()
        self.loaded_at = -math.inf

    @property
    def limit(self) -> float:
        """After how long without a request the engine is unloaded."""
        return self._most if self._wish is None else min(self._wish, self._most)

    @property
    def unused(self) -> float:
        """The time since a request ended, or an engine loaded the model."""
        return self._clock() - self._last_use

    @property
    def left(self) -> float:
        """The time until the engine is unloaded, if no request comes."""
        return max(0.0, self.limit - self.unused)

    def keep(self, seconds: float) -> None:
        """Let a client choose the limit for the engine that is loaded now, or next: the settings' limit is the longest.
        The supervisor looks about once a second whether an engine is to be unloaded."""
        self._wish = seconds

    def loaded(self) -> None:
        """An engine has loaded the model."""
        self.loaded_at = self._last_use = self._clock()

    def used(self) -> None:
        """A request has ended."""
        self._last_use = self._clock()

    def unloading(self) -> None:
        """The engine is told to end: what a client has chosen for it does not hold for the next."""
        self._wish = None

    def too_long(self) -> bool:
        """Whether an engine without requests should be unloaded."""
        return self.unused >= self.limit
