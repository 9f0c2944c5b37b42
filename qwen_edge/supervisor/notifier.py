"""Waiting until a condition holds that others change: asyncio.Condition without its lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Notifier:
    """One event loop only. Whoever changes what conditions depend on calls `fire`, which may be called anywhere on the
    loop's thread and never waits."""

    def __init__(self) -> None:
        self._waiting = set[asyncio.Future[None]]()

    def fire(self) -> None:
        """Have every waiter look at its condition again."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds. It is looked at now, and after each `fire`."""
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
