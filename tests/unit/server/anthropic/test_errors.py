"""Every kind of error has Anthropic's status, type and headers."""

import json
from typing import get_args

import pytest
from aiohttp import web

from qwen_edge.core import errors
from qwen_edge.core.errors import ErrorKind, RequestError
from qwen_edge.server.anthropic.errors import SHAPES, error_response, http_error_response


def test_every_kind_has_a_status_of_its_own():
    assert set(SHAPES) == set(get_args(ErrorKind))
    assert len({status for status, _ in SHAPES.values()}) == len(SHAPES)


@pytest.mark.parametrize(
    ("error", "status", "type_", "headers"),
    [
        (RequestError("x", parameter="n"), 400, "invalid_request_error", {}),
        (RequestError("x", "authentication"), 401, "authentication_error", {"WWW-Authenticate": "Bearer"}),
        (RequestError("x", "permission"), 403, "permission_error", {}),
        (errors.no_such_model("a", "b"), 404, "not_found_error", {}),
        (RequestError("x", "too_large"), 413, "request_too_large", {}),
        (errors.over_budget("a", 7), 429, "rate_limit_error", {"Retry-After": "7"}),
        (errors.internal_error(), 500, "api_error", {}),
        (errors.unavailable("x", 2), 529, "overloaded_error", {"Retry-After": "2"}),
    ],
)
def test_an_error_is_a_response_of_anthropics(error, status, type_, headers):
    response = error_response(error)
    body = json.loads(response.body)
    found = {name: value for name, value in response.headers.items() if name != "Content-Type"}
    assert (response.status, body["type"], body["error"]["type"]) == (status, "error", type_)
    assert body["error"]["message"] == error.message
    assert found == {**headers, "request-id": body["request_id"]}


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_know():
    message = json.loads(error_response(errors.context_too_long(9000, 8192)).body)["error"]["message"]
    assert message.startswith("prompt is too long: The prompt is 9000 tokens long")


def test_half_a_surrogate_pair_breaks_nothing():
    assert json.loads(error_response(RequestError("a\ud800\x1b" + "b" * 5000)).body)["type"] == "error"


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (web.HTTPMethodNotAllowed("GET", ["POST"]), "invalid_request_error"),
        (web.HTTPNotFound(), "not_found_error"),
        (web.HTTPExpectationFailed(), "invalid_request_error"),
        (web.HTTPServiceUnavailable(), "api_error"),
    ],
)
def test_an_error_of_aiohttps_keeps_its_status_and_headers(error, type_):
    response = http_error_response(error, "words")
    assert response.status == error.status
    assert response.headers.get("Allow") == error.headers.get("Allow")
    assert json.loads(response.body)["error"] == {"type": type_, "message": "words"}
