"""Waiting for a state that nobody announces."""

import asyncio
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any]) -> None:
    """Return once `condition()` is true; the test's own timeout is the limit."""
    while not condition():  # noqa: ASYNC110 - the state belongs to the code under test, which has no event for it
        await asyncio.sleep(0.002)
