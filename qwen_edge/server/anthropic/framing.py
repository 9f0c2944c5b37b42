"""Anthropic's server-sent events, as bytes: each has the name that its data has as `type`. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.server.anthropic.errors import error_object


def event(data: dict[str, Any]) -> bytes:
    """One event. `data` has a `type`."""
    kind: str = data["type"]
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


def error_event(error: RequestError) -> bytes:
    """The last event of a stream that ends with an error."""
    return event(error_object(error))
