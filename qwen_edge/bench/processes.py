"""What a server on this machine takes: of its memory, and of its processors while nobody asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

import psutil

_LOCAL = {"127.0.0.1", "localhost", "::1"}
_LOOK, _BUSY = 0.5, 0.05  # seconds between two looks, and of processor time in them that are work
_LONGEST = 60.0  # seconds that a server is waited for


def resident(url: str) -> int | None:
    """Bytes of the process that listens at the URL's port and of all its children; what they share with others counts
    in proportion (PSS). None for another machine's, or another user's."""
    try:
        return sum(one.memory_full_info().pss for one in _family(url)) or None
    except (psutil.Error, AttributeError):  # AttributeError: there is no PSS on this system
        return None


async def quiet(urls: Sequence[str]) -> None:
    """Wait until none of several servers computes: what one does for itself when it has answered must not slow down
    another on the same machine. Not for ever: some never rest."""
    if len({urlsplit(url).netloc for url in urls}) < 2:
        return
    loop = asyncio.get_running_loop()
    until, before = loop.time() + _LONGEST, _seconds(urls)
    while loop.time() < until:
        await asyncio.sleep(_LOOK)
        now = _seconds(urls)
        if now - before < _BUSY:
            return
        before = now


def _seconds(urls: Sequence[str]) -> float:
    """Of processor time that they have taken, all together."""
    total = 0.0
    for url in urls:
        try:
            times = [one.cpu_times() for one in _family(url)]
        except psutil.Error:
            continue
        total += sum(time.user + time.system for time in times)
    return total


def _family(url: str) -> list[psutil.Process]:
    """The process that listens at the URL's port, and its children; none if it is another machine's or user's. Raises
    psutil.Error."""
    parts = urlsplit(url)
    if parts.hostname not in _LOCAL:
        return []
    for connection in psutil.net_connections("tcp"):
        listening = connection.status == psutil.CONN_LISTEN and connection.laddr
        if listening and listening.port == (parts.port or 80) and connection.pid:
            process = psutil.Process(connection.pid)
            return [process, *process.children(recursive=True)]
    return []
