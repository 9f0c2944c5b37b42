"""What comes from outside is logged and echoed harmlessly: names are escaped and cut, noise is a line for debugging."""

import asyncio
import gc
import json
import logging
import socket
import struct
import threading

import pytest

from tests.server.raw import MESSAGES, post, raw
from tests.waiting import until

EVIL = "a\x1b[31m\n2026-01-01 ERROR forged\u202e"
SHOWN = "a\\x1b[31m\\n2026-01-01 ERROR forged\\u202e"
HUGE = "x" * 900_000


@pytest.fixture
def lines(caplog):
    """All messages of all loggers, as they are now."""
    caplog.set_level(logging.DEBUG)
    return lambda: [record.getMessage() for record in caplog.records if record.name != "asyncio" or record.exc_info]


@pytest.fixture
def quiet(caplog):
    """Nothing but lines for debugging has been logged, and no traceback."""
    caplog.set_level(logging.DEBUG)
    yield
    gc.collect()  # a task whose exception nobody has asked for tells so when it goes
    assert [record for record in caplog.records if record.exc_info] == []
    loud = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert [line for line in loud if "engine did not end" not in line] == []


@pytest.mark.parametrize("name", [EVIL, HUGE])
async def test_unknown_parameters_are_logged_escaped_and_cut(serve, lines, name):
    served = await serve(settings="  unknown_parameters: ignore\n")
    assert (await served.ask(**{name: 1}))[0] == 200
    (line,) = [line for line in lines() if "unknown parameters" in line]
    assert line.isprintable()
    assert len(line) < 200
    assert name is HUGE or SHOWN in line


async def test_many_unknown_parameters_are_counted_instead(serve, lines):
    served = await serve(settings="  unknown_parameters: ignore\n")
    assert (await served.ask(**{f"name-{i:05}": 1 for i in range(10_000)}))[0] == 200
    (line,) = [line for line in lines() if "unknown parameters" in line]
    assert line.endswith("name-00009 and 9990 more")


@pytest.mark.parametrize("name", [EVIL, HUGE])
@pytest.mark.parametrize(
    "body",
    [
        lambda name: {name: 1},
        lambda name: {"model": name},
        lambda name: {"messages": [{"role": name, "content": "hi"}]},
        lambda name: {"messages": [{"role": "user", "content": [{"type": name}]}]},
        lambda name: {"messages": [{"role": "user", "content": "hi", name: 1}]},
        lambda name: {"priority": name},
        lambda name: {"logit_bias": {name: 1}},
        lambda name: {"tools": [{"type": name, "function": {"name": "x"}}]},
        lambda name: {"chat_template_kwargs": {"messages": name}},
        lambda name: {"user": name},
    ],
)
async def test_errors_and_the_log_show_names_escaped_and_cut(serve, lines, body, name):
    served = await serve()
    async with served.post({"messages": MESSAGES, **body(name)}) as response:
        text = await response.text()
        assert response.status in (200, 400, 404), text
        for value in (json.loads(text).get("error") or {}).values():
            assert value is None or (value.isprintable() and len(value) < 600)
    assert all(line.isprintable() and len(line) < 600 for line in lines())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/%1b%5b31m%0aERROR%20forged"),
        ("GET", "/v1/models/%1b%5b31m%0aERROR%20forged"),
        ("GET", "/" + "x" * 8000),
        ("DELETE", "/v1/cache/%1b%5b31m%0aERROR%20forged"),
        ("DELETE", "/v1/cache/%ff%e2%80%ae"),
        ("X" * 500, "/v1/models"),
    ],
)
async def test_paths_and_methods_are_shown_escaped_and_cut(serve, lines, method, path):
    served = await serve()
    async with raw(served) as (reader, writer):
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b" 40" in head.splitlines()[0]
    message = json.loads(body)["error"]["message"]
    assert message.isprintable()
    assert len(message) < 300
    assert all(line.isprintable() and len(line) < 300 for line in lines())


NOT_HTTP = {
    "escape codes": b"\x1b[31mfoo\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "a header without a colon": b"GET /health HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "a line that is too long": b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
    "a header that is too long": b"GET /health HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "a path that is no text": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "an address that is none": b"GET http://[bad/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "another version": b"GET /health HTTP/3.0\r\nHost: x\r\n\r\n",
    "two lengths": b"POST /v1/cache/x/pin HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "behind a good request": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n\x1b[31mfoo\r\n\r\n",
}


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP)
async def test_what_is_not_http_is_one_line_for_debugging_and_an_error_object(serve, lines, quiet, data):
    served = await serve()
    before = len(lines())
    async with raw(served) as (reader, writer):
        writer.write(data)
        answer = await reader.read()
    head, _, body = answer[answer.rindex(b"HTTP/1.") :].partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    error = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("The request is not valid HTTP: ")
    assert error["message"].isprintable()
    told = [line for line in lines()[before:] if "not HTTP" in line]
    assert len(told) == 1
    assert told[0].isprintable()
    assert len(told[0]) < 200


async def test_an_expectation_that_is_unknown_is_an_error_object_too(serve, quiet):
    served = await serve()
    async with raw(served) as (reader, writer):
        writer.write(post("/v1/chat/completions", "Expect: nonsense", "Connection: close"))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b" 417 " in head.splitlines()[0]
    assert json.loads(body)["error"]["message"] == "POST /v1/chat/completions: Expectation Failed."


BODY = json.dumps({"messages": MESSAGES, "stream": True}).encode()
BROKEN_OFF = {
    "nothing": b"",
    "a half head": b"POST /v1/chat",
    "a half body": post(body=BODY)[:-10],
    "a half chunk": b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n{",
    "a half body nobody reads": b"DELETE /v1/cache/x HTTP/1.1\r\nContent-Length: 50\r\n\r\n{",
    "a broken chunk nobody reads": b"DELETE /v1/cache/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "a request": post(body=BODY),
    "two requests": post() + post(body=BODY),
}


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("data", BROKEN_OFF.values(), ids=BROKEN_OFF)
async def test_a_client_that_goes_away_is_no_more_than_a_line_for_debugging(serve, quiet, data, reset):
    gate = threading.Event()
    served = await serve(lambda prompt: "x" * 50, gate=gate)
    async with raw(served) as (_, writer):
        writer.write(data)
        await served.health()
        if data.endswith(BODY):
            await until(lambda: served.supervisor.pending)
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    await until(lambda: not served.supervisor.pending)
    gate.set()
    assert (await served.ask())[0] == 200


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_a_client_that_goes_away_in_the_middle_of_a_stream_is_no_more_than_that(serve, quiet, reset):
    served = await serve(lambda prompt: "x" * 2000)
    async with raw(served) as (reader, writer):
        writer.write(post(body=BODY))
        await reader.readuntil(b"data: ")
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    await until(lambda: not served.supervisor.pending)
    await asyncio.sleep(0)
