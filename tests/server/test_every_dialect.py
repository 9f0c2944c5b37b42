"""What holds for streams of every dialect: no character is split, errors are its own, a place is freed."""

import asyncio
import json
import threading

import pytest

from tests.server.raw import post, raw
from tests.waiting import until

HI = [{"role": "user", "content": "hi"}]


def choice(field):
    return lambda event: event["choices"][0].get(field, "") if event.get("choices") else ""


def delta(event):
    return event["choices"][0]["delta"].get("content") or "" if event.get("choices") else ""


# path, body, the text of an event, and what an event of an error has
DIALECTS = {
    "chat": ("/v1/chat/completions", {"messages": HI, "stream": True}, delta, "error"),
    "responses": (
        "/v1/responses",
        {"input": "hi", "stream": True},
        lambda event: event["delta"] if event["type"] == "response.output_text.delta" else "",
        "code",
    ),
    "messages": (
        "/v1/messages",
        {"model": "x", "messages": HI, "max_tokens": 3000, "stream": True},
        lambda event: event["delta"].get("text", "") if event["type"] == "content_block_delta" else "",
        "error",
    ),
    "completions": ("/v1/completions", {"prompt": "hi", "max_tokens": 3000, "stream": True}, choice("text"), "error"),
    "completion": (
        "/completion",
        {"prompt": "hi", "n_predict": 3000, "stream": True},
        lambda event: "" if event.get("stop") else event.get("content", ""),
        "error",
    ),
    "api/chat": ("/api/chat", {"messages": HI}, lambda event: event.get("message", {}).get("content", ""), "error"),
    "api/generate": ("/api/generate", {"prompt": "hi"}, lambda event: event.get("response", ""), "error"),
}
each_dialect = pytest.mark.parametrize("dialect", DIALECTS)


def events(text):
    """The JSON of the events or lines of a stream."""
    lines = (line.removeprefix("data: ") for line in text.splitlines())
    return [json.loads(line) for line in lines if line.startswith("{")]


@each_dialect
@pytest.mark.parametrize("said", ["Grüße 漢字", "a😀b👩‍👩‍👧", "x🌶️", "最后"])
async def test_no_character_is_split(serve, dialect, said):
    path, body, text, _ = DIALECTS[dialect]
    served = await serve(lambda prompt: said)  # a token is a byte
    async with served.http.post(served.address + path, json=body) as response:
        pieces = [text(event) for event in events(await response.text())]
    assert "".join(pieces) == said


@each_dialect
@pytest.mark.parametrize("limit", range(2, 8))
async def test_a_character_that_a_limit_cuts_is_shown_as_one_sign_and_no_other_is_split(serve, dialect, limit):
    path, body, text, _ = DIALECTS[dialect]
    served = await serve(lambda prompt: "a😀b")
    name = "n_predict" if "n_predict" in body else "max_tokens"
    wanted = {"options": {"num_predict": limit}} if dialect.startswith("api") else {name: limit}
    async with served.http.post(served.address + path, json={**body, **wanted}) as response:
        assert response.status == 200, await response.text()
        said = "".join(text(event) for event in events((await response.read()).decode()))
    assert said == ("a\ufffd" if limit < 5 else "a😀" if limit < 6 else "a😀b")


@each_dialect
async def test_an_error_after_the_first_byte_ends_the_stream_in_the_dialects_form(serve, dialect):
    path, body, text, mark = DIALECTS[dialect]
    gate = threading.Event()
    gate.set()
    served = await serve(lambda prompt: "x" * 3000, gate=gate)
    async with served.http.post(served.address + path, json=body) as response:
        head = b""
        while not any(text(event) for event in events(head.decode())):
            head += await response.content.readline()
        gate.clear()
        served.engines[0].kill()
        gate.set()
        rest = events((await response.read()).decode())
    told = [event for event in rest if mark in event]
    assert len(told) == 1
    assert "engine failed" in json.dumps(told)
    assert "[DONE]" not in json.dumps(rest)
    assert rest.index(told[0]) >= len(rest) - 2  # responses' own last event follows
    async with served.http.post(served.address + path, json=body) as response:
        assert response.status == 200, "the next engine answers"


@each_dialect
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_goes_away_frees_its_place(serve, dialect, streamed):
    path, body, _, _ = DIALECTS[dialect]
    gate = threading.Event()
    served = await serve(gate=gate)
    async with raw(served) as (_, writer):
        writer.write(post(path, body=json.dumps({**body, "stream": streamed}).encode()))
        await until(lambda: served.begun)
    await until(lambda: not served.supervisor.pending)
    gate.set()
    assert (await asyncio.wait_for(served.ask(), 30))[0] == 200


@each_dialect
async def test_a_reader_that_reads_nothing_keeps_no_place_and_gets_the_whole_answer_when_it_reads(serve, dialect):
    path, body, text, _ = DIALECTS[dialect]
    said = "no loop: " + " ".join(map(str, range(600)))
    served = await serve(lambda prompt: said)
    async with raw(served) as (reader, writer):
        writer.write(post(path, "Connection: close", body=json.dumps({**body, "stream": True}).encode()))
        await until(lambda: served.begun)
        await until(lambda: not served.supervisor.pending)  # nothing has been read
        whole = (await reader.read()).decode()
    lines = (line for line in whole.splitlines() if line.startswith(("data: {", "{")))
    assert "".join(text(json.loads(line.removeprefix("data: "))) for line in lines) == said
