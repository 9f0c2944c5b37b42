"""How many connections there are, and for how long one may hold its place for nothing."""

import asyncio
import contextlib
import json
import threading
import time
from types import SimpleNamespace

import pytest
from aiohttp import web

from qwen_edge.auth.keys import Keys
from qwen_edge.config.schema import ServerConfig
from qwen_edge.server.app import ALL_DIALECTS
from qwen_edge.server.connections import Connections
from tests.server.raw import post, raw, read_all, unread
from tests.waiting import until

HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HALF = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"


async def closed(reader) -> bytes:
    """What still came, once the server has closed the connection."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_health_is_answered_beside_as_many_silent_connections_as_there_may_be(serve):
    served = await serve(settings="  max_connections: 8\n", keys=Keys({"secret": "one"}))
    async with contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(raw(served)) for _ in range(8)]
        for _ in range(3):
            async with raw(served) as (reader, writer):
                writer.write(HEALTH)
                assert b" 200 " in await reader.readline()
        assert await silent[0][0].read() == b""
        assert not silent[-1][0].at_eof()


@pytest.mark.parametrize("sent", [b"", b"GET /health HTT", HEALTH], ids=["silent", "half head", "kept"])
async def test_the_oldest_idle_connection_goes_when_there_is_no_place(serve, sent):
    served = await serve(settings="  max_connections: 2\n")
    async with raw(served) as (first, one), raw(served) as (second, other):
        one.write(sent)
        other.write(HEALTH)
        assert b" 200 " in await second.readline()
        async with raw(served) as (third, writer):
            writer.write(HEALTH)
            assert b" 200 " in await third.readline()
            await closed(first)
            assert first.at_eof()
            other.write(HEALTH)  # the other is still there
            assert b" 200 " in (await second.readuntil(b" 200 "))


async def test_health_is_answered_beside_as_many_half_bodies_as_there_may_be(serve):
    served = await serve(settings="  max_connections: 3\n")
    async with raw(served) as (first, one), raw(served) as (second, other), raw(served) as (third, last):
        for writer in (one, other, last):
            writer.write(HALF)
        async with raw(served) as (reader, writer):
            writer.write(HEALTH)
            assert b" 200 " in await reader.readline()
        assert await closed(first) == b""
        assert not second.at_eof()
        assert not third.at_eof()


async def test_a_connection_too_many_is_told_503_when_all_others_have_a_request_in_flight(serve):
    gate = threading.Event()
    served = await serve(settings="  max_connections: 2\n", gate=gate)
    async with raw(served) as (first, one), raw(served) as (second, other):
        one.write(post())
        other.write(post())
        await until(lambda: served.supervisor.pending == 2)
        async with raw(served) as (third, writer):
            writer.write(post())
            head, _, body = (await third.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert json.loads(body)["error"]["code"] == "unavailable"
        gate.set()
        assert b" 200 " in await first.readline()
        assert b" 200 " in await second.readline()


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: ", HEALTH + b"GET /he"])
async def test_a_head_that_does_not_come_in_time_closes_its_connection(serve, sent):
    served = await serve(settings="  header_seconds: 0.2\n")
    async with raw(served) as (reader, writer):
        if sent.startswith(HEALTH):
            writer.write(HEALTH)
            await reader.readuntil(b"}")
            sent = sent.removeprefix(HEALTH)
        writer.write(sent)
        assert await closed(reader) == b""


async def test_a_head_that_comes_byte_by_byte_has_no_more_time(serve):
    served = await serve(settings="  header_seconds: 0.2\n")
    async with raw(served) as (reader, writer):

        async def trickle() -> None:
            with contextlib.suppress(ConnectionError):
                for byte in b"GET /health HTTP/1.1\r\nX: " + b"x" * 10_000:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        assert await closed(reader) == b""
        trickling.cancel()


async def test_a_connection_on_which_nothing_more_comes_is_closed(serve):
    served = await serve(settings="  keepalive_seconds: 0.2\n")
    async with raw(served) as (reader, writer):
        writer.write(HEALTH)
        assert b" 200 " in await reader.readline()
        assert (await closed(reader)).endswith(b"}")


async def test_a_request_that_takes_longer_than_all_limits_is_answered(serve):
    gate = threading.Event()
    limits = "".join(f"  {name}_seconds: 0.1\n" for name in ("header", "keepalive", "stall", "body"))
    served = await serve(settings=limits, gate=gate)
    async with raw(served) as (reader, writer):
        writer.write(post())
        await until(lambda: served.supervisor.pending)
        await asyncio.sleep(0.5)  # nothing may happen in this time
        gate.set()
        assert b" 200 " in await reader.readline()


@pytest.mark.parametrize(
    "line",
    ["POST /v1/chat/completions", "POST /v1/cache/abc/pin", "DELETE /v1/cache/abc", "GET /health", "PUT /nothing"],
)
@pytest.mark.parametrize("keys", [None, Keys({"secret": "one"})], ids=["no keys", "keys"])
async def test_no_body_that_never_ends_keeps_its_connection(serve, line, keys):
    served = await serve(settings="  body_seconds: 0.2\n", keys=keys)
    async with raw(served) as (reader, writer):
        writer.write(f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 ")
        await closed(reader)
        assert reader.at_eof()


async def test_the_body_of_a_pin_has_its_time_too(serve):
    served = await serve(settings="  body_seconds: 0.1\n")
    async with raw(served) as (reader, writer):
        writer.write(b"POST /v1/cache/abc/pin HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in await reader.readline()


@contextlib.asynccontextmanager
async def plain_server(size: int, limits: ServerConfig, **options):
    """Connections before an application that answers every request with so many bytes."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * size)

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    connections = Connections(runner.server, limits, 100, ALL_DIALECTS, **options)
    running = asyncio.create_task(connections.run())
    server = await asyncio.get_running_loop().create_server(connections.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield SimpleNamespace(address=f"http://127.0.0.1:{port}"), connections
    server.close()
    await runner.cleanup()
    await connections.close()
    running.cancel()


GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LARGE = 16 << 20


@pytest.mark.parametrize("size", [100_000, LARGE], ids=["all of it in the kernel", "more than the kernel takes"])
async def test_a_client_that_takes_nothing_of_an_answer_is_cut_off(size):
    async with (
        plain_server(size, ServerConfig(stall_seconds=0.3)) as (served, connections),
        unread(served, GET) as client,
    ):
        await until(lambda: connections._open)
        await until(lambda: not connections._open)
        assert len(await read_all(client)) < size


async def test_a_client_that_takes_a_little_now_and_then_goes_on():
    size = LARGE
    async with (
        plain_server(size, ServerConfig(stall_seconds=0.3)) as (served, connections),
        unread(served, GET) as client,
    ):
        loop, got, began = asyncio.get_running_loop(), 0, time.monotonic()
        while time.monotonic() - began < 1.5:  # five times as long as one that takes nothing has
            got += len(await loop.sock_recv(client, 4096))
            await asyncio.sleep(0.02)
        assert connections._open
        assert got < size / 4


async def test_what_waits_for_clients_that_do_not_read_is_bounded_for_all_together():
    most = 20 << 20
    async with (
        plain_server(8 << 20, ServerConfig(), unread=most) as (served, connections),
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(8):
            await stack.enter_async_context(unread(served, GET))
        await until(lambda: connections.waiting > most)
        await until(lambda: connections.waiting <= most)
        assert connections._open, "those that fit stay"
        async with raw(served) as (reader, writer):  # and whoever reads gets all of it
            writer.write(GET)
            assert b" 200 " in await reader.readline()
            await reader.readuntil(b"\r\n\r\n")
            assert len(await reader.readexactly(8 << 20)) == 8 << 20
