"""OpenAI's server-sent events, as bytes: one event for each chunk or error, and the final mark. Pure."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.server.openai.errors import error_object

FINGERPRINT = f"build-{version('qwen-edge')}"
"""OpenAI's `system_fingerprint`: while it stays the same, a seed gives the same answer."""

DONE = b"data: [DONE]\n\n"  # after the last chunk; not after an error


def chunk_event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def error_event(error: RequestError) -> bytes:
    """The last event of a stream that ends with an error."""
    return chunk_event(error_object(error))
