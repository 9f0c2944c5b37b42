"""Waits for a condition on changing values: asyncio.Condition without its lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Notifier:
    """For one event loop. Code that changes a value on which a condition depends calls `fire`, on the loop's thread;
    `fire` never waits."""

    def __init__(self) -> None:
        self._waiting = set[asyncio.Future[None]]()

    def fire(self) -> None:
        """Let every waiter check its condition again."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds. It is checked now, and after each `fire`."""
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
