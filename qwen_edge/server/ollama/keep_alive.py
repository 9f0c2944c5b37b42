"""Ollama's keep_alive: how long the model stays in memory after a request.

Reference: https://pkg.go.dev/time#ParseDuration, which Ollama uses for texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.server.state import STATE

_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_WHOLE = re.compile(rf"([-+]?)((?:{_PART.pattern})+|[0-9]+\.?[0-9]*)", re.ASCII)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 100  # characters


def keep_seconds(value: float | str | None) -> float | None:
    """Seconds: a number, or a text such as "5m", "1h30m" or "300". math.inf for less than 0: for ever. None: the client
    does not say. Raises RequestError."""
    if value is None or value == "":
        return None
    seconds = _parsed(value) if isinstance(value, str) else float(value)
    return math.inf if seconds < 0 else seconds


@contextmanager
def kept(request: web.Request, value: float | str | None) -> Iterator[None]:
    """Behind the request, however it ends, let its keep_alive (`value`) say how long the model stays. A time also holds
    from the start: an earlier request's 0 would otherwise unload the model as soon as this one ends. Raises
    RequestError if it is no duration."""
    seconds, idle = keep_seconds(value), request.app[STATE].engine.idle
    if seconds:
        idle.keep(seconds)
    try:
        yield
    finally:
        if seconds is not None:
            idle.keep(seconds)


def _parsed(text: str) -> float:
    match = _WHOLE.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        raise RequestError(
            f"keep_alive: {printable(text, 60)!r} is no duration. Send seconds as a number, or a text such as "
            '"5m"; -1 is for ever, and 0 unloads the model.',
            parameter="keep_alive",
        )
    parts = _PART.findall(match[2])
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else float(match[2])
    return -seconds if match[1] == "-" else seconds
