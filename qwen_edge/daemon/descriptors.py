"""File descriptors of the daemon: how many it may have, how many connections that allows, and some held in reserve.

A process that has none left can neither accept a connection nor start another process, and a module that is imported
only then cannot be read. Used on the daemon's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

log = logging.getLogger(__name__)

_ENOUGH = 65_536  # more is never used, and programs that walk through all possible numbers take longer
# event loop, listener, engine, renderer, sensors, files: about 17 were counted; starting an engine takes a few for a
# moment (engine_process.SPAWN_DESCRIPTORS), and refusals are written on 8 connections at a time (server/connections.py)
_OWN = 42
_BACKLOG = 100  # connections that asyncio accepts in one go, before anybody can count them
_FEWEST = 4  # connections, however few descriptors there are
_QUIET_SECONDS = 60.0
_USED_UP = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def raise_limit() -> None:
    """Allow this process, and those it starts, as many as the system lets it have: most systems allow 1,024 at first,
    for the sake of old programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it: then there are fewer connections
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def allowed() -> int:
    """How many this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def connection_limit(wanted: int, descriptors: int) -> int:
    """How many of the `wanted` connections (server.max_connections) may be open at a time with so many descriptors."""
    return min(wanted, max(_FEWEST, descriptors - _OWN - backlog_within(descriptors)))


def backlog_within(descriptors: int) -> int:
    """How many new connections may be accepted in one go: each has a descriptor before it is counted or refused."""
    return max(1, min(_BACKLOG, (descriptors - _OWN) // 4))


class Reserve:
    """Holds `count` descriptors for something that has to work when none is free."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[int] = []
        self._take()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Within this context they are free; afterwards they are held again, as far as others have left them."""
        while self._held:
            os.close(self._held.pop())
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY))


def quiet_when_used_up(clock: Callable[[], float] = time.monotonic) -> Callable[..., None]:
    """An exception handler for an event loop. asyncio tries again a second after a connection could not be accepted,
    but tells it a hundred times, each with a traceback: here it is a line a minute."""
    told = -_QUIET_SECONDS

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal told
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _USED_UP and "accept" in context.get("message", "")):
            loop.default_exception_handler(context)
        elif clock() - told >= _QUIET_SECONDS:
            told = clock()
            log.error("new connections cannot be accepted now; the daemon tries again every second: %s", error.strerror)

    return handle
