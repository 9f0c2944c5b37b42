"""What no server should send is a sentence to whoever asked it, and fills neither memory nor files."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from qwen_edge.client import server as client
from qwen_edge.client.server import servers_at
from qwen_edge.core.errors import UserError
from tests.server.rated import scripted

SAYS = {"choices": [{"delta": {"content": "yes"}}]}
WRONG = {
    "choices": [{"choices": 5}],
    "a choice": [{"choices": ["yes"]}],
    "a text": [{"choices": [{"delta": {"content": ["yes"]}}]}],
    "usage": [SAYS, {"usage": [7]}],
    "words for tokens": [SAYS, {"usage": {"completion_tokens": "many"}}],
    "more tokens than there are": [SAYS, {"usage": {"completion_tokens": 10**400}}],
    "tokens below none": [SAYS, {"usage": {"completion_tokens": -1}}],
}


@pytest.mark.parametrize("events", WRONG.values(), ids=WRONG)
async def test_an_event_that_is_no_chunk_is_a_sentence(events):
    async with scripted(lambda _: events) as server, servers_at([server.url]) as (asked,):
        with pytest.raises(UserError, match="no chunk of a chat completion"):
            await asked.ask("?")


async def test_parts_that_are_null_or_missing_are_passed_over():
    ends = {"choices": [{"finish_reason": "stop"}], "usage": {"completion_tokens": None}}
    events = [{"choices": None}, {"choices": [{"delta": None}, {}]}, SAYS, ends]
    async with scripted(lambda _: events) as server, servers_at([server.url]) as (asked,):
        answer = await asked.ask("?")
    assert (answer.text, answer.tokens) == ("yes", 1)


async def test_a_line_may_be_as_long_as_an_answer():
    text = "yes " * 400_000
    async with scripted(lambda _: text) as server, servers_at([server.url]) as (asked,):
        assert (await asked.ask("?")).text == text


@asynccontextmanager
async def endless(status):
    """A server of which every body is one line without an end."""

    async def answer(request):
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        while True:
            await response.write(b"data: {" * 1000)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("status", [200, 500])
async def test_a_body_without_an_end_is_given_up(status, monkeypatch):
    monkeypatch.setattr(client, "_LONGEST", 1_000_000)

    async def streamed(server):
        async for _ in server.stream({"messages": []}):
            pass

    async with endless(status) as url, servers_at([url], "m") as (server,):
        for asked in (server.models(), server.ask("?"), server.prompt_tokens("?"), streamed(server)):
            with pytest.raises(UserError, match="more than"):
                await asyncio.wait_for(asked, 60)


@pytest.mark.parametrize("host", ["x" * 70 + ".example", "..", "[::1"])
async def test_a_host_whose_name_is_none_is_a_sentence(host):
    async with servers_at([f"http://{host}:1"]) as (server,):
        with pytest.raises(UserError, match="is not the address of a server"):
            await server.models()


async def test_what_is_no_http_is_told_in_a_short_sentence():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x1b[2J" * 2000 + b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, servers_at([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"]) as (asked,):
        with pytest.raises(UserError) as told:
            await asked.models()
    assert len(str(told.value)) < 500
    assert "\x1b" not in str(told.value)
