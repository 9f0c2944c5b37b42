"""Encodes errors in Ollama's form: a status, and {"error": "text"}. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from qwen_edge.core.errors import ErrorKind, RequestError
from qwen_edge.server.replies import error_headers, json_response, kept_headers, shown_message

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
    """The body, and the line of a stream that ends with an error."""
    return {"error": shown_message(error.message)}


def error_response(error: RequestError) -> web.Response:
    """The response for an error of a request that has no response yet."""
    return json_response(error_object(error), status=STATUSES[error.kind], headers=error_headers(error))


def http_error_response(error: web.HTTPException, message: str) -> web.Response:
    """The response that replaces aiohttp's own, for an unknown path for example. It keeps headers such as Allow."""
    body = error_object(RequestError(message))
    return json_response(body, status=error.status, headers=kept_headers(error))
