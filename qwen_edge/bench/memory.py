"""What a server on this machine takes of its memory."""

from __future__ import annotations

from urllib.parse import urlsplit

import psutil

_LOCAL = {"127.0.0.1", "localhost", "::1"}


def resident(url: str) -> int | None:
    """Bytes of the process that listens at the URL's port and of all its children; what they share with others counts
    in proportion (PSS). None for another machine's, or another user's."""
    parts = urlsplit(url)
    if parts.hostname not in _LOCAL:
        return None
    try:
        process = _listener(parts.port or 80)
        if process is None:
            return None
        return sum(one.memory_full_info().pss for one in [process, *process.children(recursive=True)])
    except (psutil.Error, AttributeError):  # AttributeError: there is no PSS on this system
        return None


def _listener(port: int) -> psutil.Process | None:
    for connection in psutil.net_connections("tcp"):
        listening = connection.status == psutil.CONN_LISTEN and connection.laddr
        if listening and listening.port == port and connection.pid:
            return psutil.Process(connection.pid)
    return None
