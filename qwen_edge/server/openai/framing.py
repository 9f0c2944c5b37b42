"""What OpenAI's streams have beside their chunks: an error, the final mark, the name of the build. Pure."""

from __future__ import annotations

from importlib.metadata import version

from qwen_edge.core.errors import RequestError
from qwen_edge.server.openai.errors import error_object
from qwen_edge.server.sse import data_event

FINGERPRINT = f"build-{version('qwen-edge')}"
"""OpenAI's `system_fingerprint`: while it stays the same, a seed gives the same answer."""

DONE = b"data: [DONE]\n\n"  # after the last chunk; not after an error


def error_event(error: RequestError) -> bytes:
    """The last event of a stream that ends with an error."""
    return data_event(error_object(error))
