"""asyncio.Condition without its lock: waits until a condition on changing values holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Condition:
    """For one event loop. Code that changes a value on which a predicate depends calls `notify_all`, on the loop's
    thread; `notify_all` never waits."""

    def __init__(self) -> None:
        self._waiting = set[asyncio.Future[None]]()

    def notify_all(self) -> None:
        """Let every waiter check its predicate again."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Return when `predicate` holds. It is checked now, and after each `notify_all`."""
        while not predicate():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
