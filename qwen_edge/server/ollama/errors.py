"""Encodes errors in Ollama's form: a status, and {"error": "text"}. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from qwen_edge.core.errors import ErrorKind, RequestError
from qwen_edge.core.printable import printable

_LONGEST = 2000  # characters of an error's message

STATUSES: Mapping[ErrorKind, int] = {
    "invalid_request": 400,
    "authentication": 401,
    "permission": 403,
    "not_found": 404,
    "timeout": 408,
    "too_large": 413,
    "unsupported_encoding": 415,
    "rate_limited": 429,
    "internal": 500,
    "unavailable": 503,
}


class OllamaErrorBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an error."""

    error: str


error_type: Any = OllamaErrorBody

what_there_is = "Questions go to POST /api/chat; docs/ollama.md has all paths."


def error_object(error: RequestError) -> dict[str, str]:
    """The body, and the line of a stream that ends with an error. The text is made printable and cut, in case it
    contains a name from outside."""
    return {"error": printable(error.message, _LONGEST)}


def error_response(error: RequestError) -> web.Response:
    """The response for an error of a request that has no response yet."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.kind == "authentication":
        headers["WWW-Authenticate"] = "Bearer"
    return _response(error, STATUSES[error.kind], headers)


def http_error_response(error: web.HTTPException, message: str) -> web.Response:
    """The response that replaces aiohttp's own, for an unknown path for example. It keeps headers such as Allow, and
    drops those that describe aiohttp's text."""
    headers = {name: value for name, value in error.headers.items() if not name.lower().startswith("content-")}
    return _response(RequestError(message), error.status, headers)


def _response(error: RequestError, status: int, headers: Mapping[str, str]) -> web.Response:
    body = msgspec.json.encode(error_object(error))
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
