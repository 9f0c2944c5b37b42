"""Encodes errors in OpenAI's form: status, headers and body. Pure.

Reference: https://platform.openai.com/docs/guides/error-codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

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


class ErrorObject(msgspec.Struct, forbid_unknown_fields=True):
    """`param`: the parameter that is wrong. `code`: a word for programs; docs/api.md lists them. Where a prompt is too
    long, llama-server's fields say how long, and how much the context holds."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error", "exceed_context_size_error"]
    param: str | None
    code: str | None
    n_prompt_tokens: int | msgspec.UnsetType = msgspec.UNSET
    n_ctx: int | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an error."""

    error: ErrorObject


error_type: Any = ErrorBody

what_there_is = "Questions go to POST /v1/chat/completions; docs/api.md has all paths."


def error_object(error: RequestError) -> dict[str, Any]:
    """The body. The text is made printable and cut, in case a message contains a long or unprintable name from outside:
    half a surrogate pair would break the JSON, and control characters would reach a terminal."""
    return {
        "error": {
            "message": printable(error.message, _LONGEST),
            # OpenAI's word is the code; llama-server's clients look at the type, and at the numbers in `details`
            "type": "exceed_context_size_error" if error.details else SHAPES[error.kind][1],
            "param": None if error.parameter is None else printable(error.parameter),
            "code": error.code,
            **error.details,
        }
    }


def error_response(error: RequestError) -> web.Response:
    """The response for an error of a request that has no response yet."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.kind == "authentication":
        headers["WWW-Authenticate"] = "Bearer"
    return _response(error, SHAPES[error.kind][0], headers)


def http_error_response(error: web.HTTPException, message: str) -> web.Response:
    """The response that replaces aiohttp's own, for an unknown path for example. It keeps headers such as Allow, and
    drops those that describe aiohttp's text."""
    headers = {name: value for name, value in error.headers.items() if not name.lower().startswith("content-")}
    return _response(RequestError(message), error.status, headers)


def _response(error: RequestError, status: int, headers: Mapping[str, str]) -> web.Response:
    body = msgspec.json.encode(error_object(error))
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
