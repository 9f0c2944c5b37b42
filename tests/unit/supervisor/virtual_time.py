"""An event loop whose time passes only while nothing else is to be done: a minute of it takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_MOST_TURNS = 10_000


class _Selector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer it moves the clock there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._turns = 0  # of the loop at this time

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        self._turns += 1
        assert self._turns < _MOST_TURNS, "time does not go on: something is done again and again"
        if events or timeout == 0:
            return events
        assert timeout is not None, "nothing will ever happen again: somebody waits for a wake-up that is lost"
        self.now += max(timeout, 0.0)
        self._turns = 0
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` begins with 0. Sockets work as ever, if both ends are on this loop."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(program: Coroutine[Any, Any, _Result]) -> _Result:
    """Run it to its end on a loop of its own."""
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(program)
    finally:
        loop.close()
