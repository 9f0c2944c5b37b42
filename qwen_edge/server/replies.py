"""Replies with a body of JSON, and what errors have in common in all dialects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable

Json = dict[str, Any]

_LONGEST_MESSAGE = 2000  # characters


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """The value as JSON."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", headers=headers
    )


def shown_message(message: str) -> str:
    """An error's message, printable and cut, in case it contains a long or unprintable name from outside: half a
    surrogate pair would break the JSON, and control characters would reach a terminal."""
    return printable(message, _LONGEST_MESSAGE)


def error_headers(error: RequestError) -> dict[str, str]:
    """The headers of the response for an error."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.kind == "authentication":
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def kept_headers(error: web.HTTPException) -> dict[str, str]:
    """The headers of aiohttp's own response, such as Allow, without those that describe its text."""
    return {name: value for name, value in error.headers.items() if not name.lower().startswith("content-")}
