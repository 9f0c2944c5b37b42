"""Encodes errors in Anthropic's form: status, headers and body. Pure.

Reference: https://docs.anthropic.com/en/api/errors. Anthropic's status of a server that takes no requests now is 529,
with the type overloaded_error; its clients wait as Retry-After says, and try again.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from aiohttp import web

from qwen_edge.core.errors import ErrorKind, RequestError
from qwen_edge.server.replies import error_headers, json_response, kept_headers, shown_message

_TOO_LONG = "prompt is too long: "  # words for which Claude Code and LangChain search the message

# the status, and the type
SHAPES: Mapping[ErrorKind, tuple[int, str]] = {
    "invalid_request": (400, "invalid_request_error"),
    "authentication": (401, "authentication_error"),
    "permission": (403, "permission_error"),
    "not_found": (404, "not_found_error"),
    "timeout": (408, "timeout_error"),
    "too_large": (413, "request_too_large"),
    "unsupported_encoding": (415, "invalid_request_error"),
    "rate_limited": (429, "rate_limit_error"),
    "internal": (500, "api_error"),
    "unavailable": (529, "overloaded_error"),
}
_TYPES = dict(SHAPES.values())  # the type of each status


class ErrorDetails(msgspec.Struct, forbid_unknown_fields=True):
    """A word for programs: docs/api.md lists them."""

    error_code: str


class ErrorObject(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    message: str
    details: ErrorDetails | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an error."""

    type: Literal["error"]
    error: ErrorObject
    request_id: str


error_type: Any = ErrorBody

what_there_is = "Questions go to POST /v1/messages; docs/anthropic.md has all paths."


def error_object(error: RequestError, type_: str | None = None, request_id: str | None = None) -> dict[str, Any]:
    """The body, or the data of a stream's last event."""
    too_long = error.code == "context_length_exceeded"
    message = shown_message(_TOO_LONG + error.message if too_long else error.message)
    details = {"details": {"error_code": error.code}} if error.code else {}
    return {
        "type": "error",
        "error": {"type": type_ or SHAPES[error.kind][1], "message": message, **details},
        "request_id": request_id or new_request_id(),
    }


def new_request_id() -> str:
    """A name for a request, by which people can talk about it."""
    return f"req_{secrets.token_hex(12)}"


def error_response(error: RequestError) -> web.Response:
    """The response for an error of a request that has no response yet."""
    status, type_ = SHAPES[error.kind]
    return _response(error, status, type_, error_headers(error))


def http_error_response(error: web.HTTPException, message: str) -> web.Response:
    """The response that replaces aiohttp's own, for a wrong method for example. It keeps headers such as Allow."""
    type_ = _TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return _response(RequestError(message), error.status, type_, kept_headers(error))


def _response(error: RequestError, status: int, type_: str, headers: Mapping[str, str]) -> web.Response:
    request_id = new_request_id()
    body = error_object(error, type_, request_id)
    return json_response(body, status=status, headers={**headers, "request-id": request_id})
