"""What errors have in common in all dialects: their headers, and a message that is safe to show."""

import json

import pytest
from aiohttp import web

from qwen_edge.core import errors
from qwen_edge.core.errors import RequestError
from qwen_edge.server.replies import error_headers, json_response, kept_headers, shown_message


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (RequestError("x"), {}),
        (RequestError("x", "authentication"), {"WWW-Authenticate": "Bearer"}),
        (errors.unavailable("x", 0), {"Retry-After": "0"}),
        (errors.over_budget("a", 7), {"Retry-After": "7"}),
    ],
)
def test_an_error_says_who_may_come_back_and_when(error, headers):
    assert error_headers(error) == headers


def test_of_aiohttps_own_response_what_describes_its_text_goes():
    replaced = web.HTTPMethodNotAllowed("GET", ["POST"], headers={"X-Else": "1"}, text="text")
    assert kept_headers(replaced) == {"Allow": "POST", "X-Else": "1"}


def test_a_message_can_be_sent_whatever_name_is_in_it():
    shown = shown_message("half \ud800 and \x1b[2J" + "a" * 5000)
    assert "\x1b" not in shown and len(shown) <= 2000
    shown.encode()  # raises on half a surrogate pair


def test_a_reply_is_json_with_its_status_and_headers():
    reply = json_response({"a": "é"}, status=404, headers={"X-A": "1"})
    assert (reply.status, reply.headers["X-A"], reply.content_type) == (404, "1", "application/json")
    assert json.loads(reply.body) == {"a": "é"}
