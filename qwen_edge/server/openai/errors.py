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
from qwen_edge.server.replies import error_headers, json_response, kept_headers, shown_message

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
    """`param`: the parameter that is wrong. `code`: a word for programs; docs/api.md lists them. `n_prompt_tokens`,
    `n_ctx`: of a prompt that is longer than the context, as llama-server tells them."""

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
    """The body."""
    return {
        "error": {
            "message": shown_message(error.message),
            # OpenAI's word is the code; llama-server's clients look at the type, and at the numbers in `details`
            "type": "exceed_context_size_error" if error.details else SHAPES[error.kind][1],
            "param": None if error.parameter is None else printable(error.parameter),
            "code": error.code,
            **error.details,
        }
    }


def error_response(error: RequestError) -> web.Response:
    """The response for an error of a request that has no response yet."""
    return json_response(error_object(error), status=SHAPES[error.kind][0], headers=error_headers(error))


def http_error_response(error: web.HTTPException, message: str) -> web.Response:
    """The response that replaces aiohttp's own, for an unknown path for example. It keeps headers such as Allow."""
    body = error_object(RequestError(message))
    return json_response(body, status=error.status, headers=kept_headers(error))
