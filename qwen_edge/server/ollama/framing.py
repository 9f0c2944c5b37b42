"""Ollama's streams, as bytes: a line of JSON for each chunk or error; its times and durations. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec

_LONGEST = timedelta(seconds=(2**63 - 1) // 10**9)  # the longest duration that Ollama can write: 292 years


def line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def timestamp(time: float) -> str:
    """A time in seconds since 1970, in the form of RFC 3339."""
    return datetime.fromtimestamp(time, timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def timestamp_after(time: float, seconds: float) -> str:
    """The timestamp of `seconds` after `time`. What never comes is 292 years away, as in Ollama."""
    away = timedelta(seconds=seconds) if seconds < _LONGEST.total_seconds() else _LONGEST
    return timestamp((datetime.fromtimestamp(time, timezone.utc) + away).timestamp())


def nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))
