"""Errors in OpenAI's shape: their status, headers and body. Pure.

Reference: https://platform.openai.com/docs/guides/error-codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from qwen_edge.core.errors import ErrorKind, RequestError
from qwen_edge.core.printable import printable

_LONGEST = 2000  # characters of an error's message

# the status, and what OpenAI calls `type`
SHAPES: Mapping[ErrorKind, tuple[int, str]] = {
    "invalid_request": (400, "invalid_request_error"),
    "authentication": (401, "invalid_request_error"),
    "permission": (403, "invalid_request_error"),
    "not_found": (404, "invalid_request_error"),
    "timeout": (408, "invalid_request_error"),
    "too_large": (413, "invalid_request_error"),
    "unsupported_encoding": (415, "invalid_request_error"),
    "rate_limited": (429, "rate_limit_error"),
    "internal": (500, "server_error"),
    "unavailable": (503, "server_error"),
}


def error_object(error: RequestError) -> dict[str, Any]:
    """The body. Names from outside are cut where a message is made; what is forgotten there can neither break the JSON
    (half a surrogate pair would) nor give orders to a terminal."""
    return {
        "error": {
            "message": printable(error.message, _LONGEST),
            "type": SHAPES[error.kind][1],
            "param": None if error.parameter is None else printable(error.parameter),
            "code": error.code,
        }
    }


def error_response(error: RequestError) -> web.Response:
    """The response to a request that has had none yet."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.kind == "authentication":
        headers["WWW-Authenticate"] = "Bearer"
    return _response(error, SHAPES[error.kind][0], headers)


def http_error_response(error: web.HTTPException, message: str) -> web.Response:
    """The response in place of one that aiohttp would have sent: for a path that does not exist, for example. It keeps
    the headers that tell what may be asked, as Allow does, and loses those about aiohttp's own text."""
    headers = {name: value for name, value in error.headers.items() if not name.lower().startswith("content-")}
    return _response(RequestError(message), error.status, headers)


def _response(error: RequestError, status: int, headers: Mapping[str, str]) -> web.Response:
    body = msgspec.json.encode(error_object(error))
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
