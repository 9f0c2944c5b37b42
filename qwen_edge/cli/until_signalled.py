"""Runs asynchronous work of a verb, so that a signal that would end the process ends the work in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def run_until_signalled(work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work`; SIGINT, SIGTERM and SIGHUP cancel it, so that no started server is left behind. Raises
    KeyboardInterrupt then. In the main thread."""
    try:
        return asyncio.run(_until_signalled(work))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _until_signalled(work: Coroutine[Any, Any, _T]) -> _T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
            loop.add_signal_handler(number, task.cancel)
    return await work
