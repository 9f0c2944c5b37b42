"""OpenAI's server-sent events, as bytes: a chunk or an error each, and the mark behind the last. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.server.openai.errors import error_object

DONE = b"data: [DONE]\n\n"  # behind the last chunk; a stream that ends in an error has none


def chunk_event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def error_event(error: RequestError) -> bytes:
    """The last event of a stream that breaks off."""
    return chunk_event(error_object(error))
