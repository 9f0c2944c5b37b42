"""Errors know no dialect; OpenAI's writes every kind of them with its own status, type and headers."""

import json
from dataclasses import fields
from typing import get_args

import msgspec
import pytest
from aiohttp import web

from qwen_edge.core import errors
from qwen_edge.core.errors import ErrorKind, RequestError
from qwen_edge.server.openai.errors import SHAPES, ErrorBody, error_object, error_response, http_error_response


def test_every_kind_has_a_status_of_its_own():
    assert set(SHAPES) == set(get_args(ErrorKind))
    statuses = [status for status, _ in SHAPES.values()]
    assert len(set(statuses)) == len(statuses)
    assert all((kind == "server_error") == (status >= 500) for status, kind in SHAPES.values())


def test_an_error_says_nothing_of_http():
    named = {"message", "kind", "code", "parameter", "retry_after", "details"}
    assert {field.name for field in fields(RequestError)} == named


@pytest.mark.parametrize(
    ("error", "status", "type_", "headers"),
    [
        (RequestError("x", parameter="n"), 400, "invalid_request_error", {}),
        (RequestError("x", "authentication"), 401, "invalid_request_error", {"WWW-Authenticate": "Bearer"}),
        (errors.no_such_model("a", "b"), 404, "invalid_request_error", {}),
        (errors.over_budget("a", 7), 429, "rate_limit_error", {"Retry-After": "7"}),
        (errors.internal_error(), 500, "server_error", {}),
        (errors.unavailable("x", 2), 503, "server_error", {"Retry-After": "2"}),
        (errors.WaitedTooLongError(), 503, "server_error", {"Retry-After": "10"}),
    ],
)
def test_an_error_is_a_response_of_openais(error, status, type_, headers):
    response = error_response(error)
    assert response.status == status
    assert {name: value for name, value in response.headers.items() if name != "Content-Type"} == headers
    assert json.loads(response.body) == error_object(error)
    assert json.loads(response.body)["error"] == {
        "message": error.message,
        "type": type_,
        "param": error.parameter,
        "code": error.code,
    }


def test_a_method_that_is_not_there_keeps_the_list_of_those_that_are():
    response = http_error_response(web.HTTPMethodNotAllowed("GET", ["POST"]), "words")
    assert (response.status, response.headers["Allow"], response.content_type) == (405, "POST", "application/json")
    assert json.loads(response.body)["error"]["message"] == "words"


@pytest.mark.parametrize(
    "error", [RequestError("x", parameter="n"), errors.context_too_long(119, 64), errors.internal_error()]
)
def test_an_error_has_the_form_that_the_description_promises(error):
    msgspec.convert(error_object(error), ErrorBody, strict=True)
