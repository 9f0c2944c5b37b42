"""Streams to clients that read slowly or not at all, and streams in which nothing is said for long."""

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import threading

import pytest

from tests.server.raw import MESSAGES, post, raw, read_all, unread
from tests.waiting import until

MUCH = {"stream": True, "logprobs": True, "top_logprobs": 20}
LONG = "x" * 1000


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("streamed", [True, False])
async def test_readers_that_read_nothing_free_their_places(serve, n, streamed):
    gate = threading.Event()
    served = await serve(
        lambda prompt: LONG if "hi" in prompt else "Yes.",
        "  max_waiting: 3\nengine:\n  parallel: 1\n",
        context=16384,
        gate=gate,
    )
    asked = post(**{**MUCH, "stream": streamed}, n=n)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4 // n):
            await stack.enter_async_context(unread(served, asked))
        await until(lambda: served.supervisor.pending == 4)
        status, answer = await served.ask("one more")
        assert status == 503
        gate.set()
        await until(lambda: served.supervisor.pending == 0)
        status, answer = await served.ask("one more")
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == "Yes."


async def test_a_reader_that_reads_late_gets_everything(serve):
    served = await serve(lambda prompt: LONG, context=16384)
    async with unread(served, post(**MUCH)) as client:
        await until(lambda: served.supervisor.pending)
        await until(lambda: not served.supervisor.pending)
        loop, got = asyncio.get_running_loop(), b""
        while not got.endswith(b"\r\n0\r\n\r\n"):
            got += await loop.sock_recv(client, 1 << 16)
    assert got.count(b'"content":"x"') == len(LONG)
    assert b"data: [DONE]" in got


async def test_a_stream_that_nobody_reads_is_cut_off(serve):
    served = await serve(lambda prompt: LONG, "  stall_seconds: 0.3\n", context=16384)
    async with unread(served, post(**MUCH)) as client:
        await until(lambda: served.supervisor.pending)
        await until(lambda: not served.supervisor.pending)
        await until(lambda: client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET)


async def test_a_stream_that_nobody_reads_does_not_hold_up_a_stop(serve):
    served = await serve(lambda prompt: LONG, "  stall_seconds: 0.3\n", context=16384)  # drain_seconds: 60
    async with unread(served, post(**MUCH)):
        await until(lambda: served.supervisor.pending)
        await until(lambda: not served.supervisor.pending)
        os.kill(os.getpid(), signal.SIGTERM)
        await served.task


async def test_a_slow_reader_gets_all_of_its_answer_while_the_daemon_stops(serve):
    served = await serve(lambda prompt: LONG, context=16384)
    async with unread(served, post(**{**MUCH, "stream": False})) as client:
        await until(lambda: served.supervisor.pending)
        await until(lambda: not served.supervisor.pending)
        os.kill(os.getpid(), signal.SIGTERM)
        got = await read_all(client)
    assert json.loads(got.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] == LONG
    await served.task


async def test_a_client_that_goes_away_before_the_first_event_ends_its_request(serve):
    gate = threading.Event()
    served = await serve(gate=gate)
    async with raw(served) as (_, writer):
        writer.write(post(stream=True))
        await until(lambda: served.begun)
    await until(lambda: not served.supervisor.pending)
    gate.set()


async def test_a_stream_that_waits_for_its_first_token_sends_comments(serve):
    gate = threading.Event()
    served = await serve(gate=gate, settings="  comment_seconds: 0.05\n")
    async with served.post({"messages": MESSAGES, "stream": True}) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        for _ in range(3):
            assert (await response.content.readline()).startswith(b":")
            assert await response.content.readline() == b"\n"
        gate.set()
        rest = (await response.text()).split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in rest if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "Hello!"
    assert "data: [DONE]" in rest


async def test_a_stream_that_stands_still_in_its_middle_sends_comments(serve):
    gate = threading.Event()
    gate.set()
    served = await serve(lambda prompt: LONG, gate=gate, settings="  comment_seconds: 0.05\n")
    async with served.post({"messages": MESSAGES, "stream": True}) as response:
        assert (await response.content.readline()).startswith(b"data: ")
        gate.clear()
        while not (await response.content.readline()).startswith(b":"):
            pass
        gate.set()
        assert (await response.text()).endswith("data: [DONE]\n\n")


async def test_a_stream_in_which_tokens_come_has_no_comments(serve):
    served = await serve(lambda prompt: "x" * 200, settings="  comment_seconds: 30\n")
    async with served.post({"messages": MESSAGES, "stream": True}) as response:
        assert all(line.startswith("data: ") for line in (await response.text()).strip().split("\n\n"))


async def test_a_request_that_is_refused_before_the_first_comment_has_its_own_status(serve):
    gate = threading.Event()
    served = await serve(gate=gate, settings="  max_waiting: 0\nengine:\n  parallel: 1\n")
    async with raw(served) as (_, writer):
        writer.write(post())
        await until(lambda: served.supervisor.pending)
        async with served.post({"messages": MESSAGES, "stream": True}) as response:
            assert response.status == 503
        gate.set()


async def test_a_failure_after_a_comment_is_an_event(serve):
    gate = threading.Event()
    served = await serve(gate=gate, settings="  comment_seconds: 0.05\n")
    async with served.post({"messages": MESSAGES, "stream": True}) as response:
        assert (await response.content.readline()).startswith(b":")
        served.engines[0].kill()
        gate.set()
        *_, last = (await response.text()).strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_failed"


async def test_the_openai_client_does_not_mind_comments(serve):
    openai = pytest.importorskip("openai")
    gate = threading.Event()
    served = await serve(gate=gate, settings="  comment_seconds: 0.02\n")
    async with openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(model="fake", messages=MESSAGES, stream=True)
        asyncio.get_running_loop().call_later(0.2, gate.set)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == "Hello!"


async def test_langchain_does_not_mind_comments(serve):
    openai = pytest.importorskip("openai")
    langchain = pytest.importorskip("langchain_openai")
    gate = threading.Event()
    served = await serve(gate=gate, settings="  comment_seconds: 0.02\n")
    async with openai.DefaultAsyncHttpxClient() as http:
        chat = langchain.ChatOpenAI(
            model="fake", base_url=f"{served.address}/v1", api_key="none", http_async_client=http
        )
        asyncio.get_running_loop().call_later(0.2, gate.set)
        assert "".join([piece.content async for piece in chat.astream("hi")]) == "Hello!"
