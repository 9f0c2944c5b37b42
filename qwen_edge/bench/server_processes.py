"""Measures the memory of a server on this machine, and its processor time while it is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

import psutil

_LOCAL = {"127.0.0.1", "localhost", "::1"}
_INTERVAL = 0.5  # seconds between two measurements
_BUSY_SECONDS = 0.05  # a server that takes more processor time than this in an interval is busy
_LONGEST = 60.0  # seconds to wait for a server to become idle


def memory_bytes(url: str) -> int | None:
    """Bytes of memory of the process that listens at the URL's port and of all its children. Shared memory counts in
    proportion (PSS). None if the process is on another machine, or another user's."""
    try:
        return sum(one.memory_full_info().pss for one in _process_tree(url)) or None
    except (psutil.Error, AttributeError):  # AttributeError: this system has no PSS
        return None


async def wait_until_idle(urls: Sequence[str]) -> None:
    """Wait until all servers are idle, because the background work of one would slow down another on the same machine.
    Wait no longer than _LONGEST: some servers are never idle."""
    if len({urlsplit(url).netloc for url in urls}) < 2:
        return
    loop = asyncio.get_running_loop()
    until, before = loop.time() + _LONGEST, _seconds(urls)
    while loop.time() < until:
        await asyncio.sleep(_INTERVAL)
        now = _seconds(urls)
        if now - before < _BUSY_SECONDS:
            return
        before = now


def _seconds(urls: Sequence[str]) -> float:
    """The processor time, in seconds, that all servers have used."""
    total = 0.0
    for url in urls:
        try:
            times = [one.cpu_times() for one in _process_tree(url)]
        except psutil.Error:
            continue
        total += sum(time.user + time.system for time in times)
    return total


def _process_tree(url: str) -> list[psutil.Process]:
    """The process that listens at the URL's port, and its children; empty if it is on another machine, or another
    user's. Raises psutil.Error."""
    parts = urlsplit(url)
    if parts.hostname not in _LOCAL:
        return []
    for connection in psutil.net_connections("tcp"):
        listening = connection.status == psutil.CONN_LISTEN and connection.laddr
        if listening and listening.port == (parts.port or 80) and connection.pid:
            process = psutil.Process(connection.pid)
            return [process, *process.children(recursive=True)]
    return []
