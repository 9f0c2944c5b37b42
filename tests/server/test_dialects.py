"""A second dialect writes its own errors, on its own paths only."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from qwen_edge.auth.keys import Keys
from qwen_edge.core.errors import RequestError, no_such_model
from qwen_edge.daemon import http_server
from qwen_edge.server.dialects import Dialects
from qwen_edge.server.openai import errors as openai
from tests.server.conftest import Serve, Served
from tests.server.raw import post, raw


class Plain:
    """A dialect whose errors are a line of text, and whose status is always 418 where HTTP does not give one."""

    what_there_is = "Questions go nowhere."

    def error_response(self, error: RequestError) -> web.Response:
        return web.Response(status=418, text=f"{error.kind} {error.parameter}: {error.message}")

    def http_error_response(self, error: web.HTTPException, message: str) -> web.Response:
        return web.Response(status=error.status, text=f"http: {message}")


async def refuse(_: web.Request) -> web.Response:
    raise no_such_model("a", "b")


async def fail(_: web.Request) -> web.Response:
    raise KeyError("a bug")


@pytest.fixture
async def start(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """As `serve`, but with a second dialect on /plain."""
    dialects, make_app = Dialects(openai, {"/plain": Plain()}), http_server.make_app

    def with_second_dialect(*given: object) -> web.Application:
        app = make_app(*given)
        app.router.add_post("/plain/refuse", refuse)
        app.router.add_post("/plain/fail", fail)
        return app

    monkeypatch.setattr(http_server, "ALL_DIALECTS", dialects)
    monkeypatch.setattr(http_server, "make_app", with_second_dialect)
    yield serve


async def asked(served: Served, method: str, path: str) -> tuple[int, str, str]:
    async with served.http.request(method, f"{served.address}{path}") as response:
        return response.status, response.content_type, await response.text()


async def test_an_error_of_a_path_is_written_by_the_dialect_of_the_path(start):
    served = await start()
    message = no_such_model("a", "b").message
    assert await asked(served, "POST", "/plain/refuse") == (418, "text/plain", f"not_found model: {message}")
    assert (await asked(served, "POST", "/plain/fail"))[2].startswith("internal None: Internal error")
    status, _, text = await asked(served, "GET", "/plain/nothing")
    assert (status, text) == (404, "http: GET /plain/nothing: Not Found. Questions go nowhere.")
    status, kind, text = await asked(served, "GET", "/plainly")
    assert (status, kind, text.startswith('{"error":{"message":"GET /plainly')) == (404, "application/json", True)


async def test_an_error_before_any_handler_is_written_by_the_dialect_of_the_path(start):
    served = await start(keys=Keys({"secret": "one"}))
    assert (await asked(served, "POST", "/plain/refuse"))[2].startswith("authentication None: A valid API key")
    assert (await asked(served, "GET", "/v1/models"))[1] == "application/json"


@pytest.mark.parametrize(
    ("path", "start_of_body"), [("/plain/refuse", b"http: POST"), ("/v1/chat/completions", b'{"error"')]
)
async def test_what_aiohttp_refuses_itself_is_written_by_the_dialect_of_the_path(start, path, start_of_body):
    served = await start()
    async with raw(served) as (reader, writer):
        writer.write(post(path, "Expect: nonsense", "Connection: close"))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 417 ")
    assert body.startswith(start_of_body)


async def test_what_is_no_http_gets_the_default_dialects_error(start):
    served = await start()
    async with raw(served) as (reader, writer):
        writer.write(b"nonsense\r\n\r\n")
        answer = await reader.read()
    assert b" 400 " in answer.splitlines()[0]
    assert b'{"error":{"message":"The request is not valid HTTP' in answer
