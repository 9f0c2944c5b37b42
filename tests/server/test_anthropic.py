"""POST /v1/messages over a real port: whole and streamed, with tools, thinking, counting, pins, keys and errors."""

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from qwen_edge.auth.keys import Keys
from tests.server.raw import post, raw
from tests.waiting import until

HI = [{"role": "user", "content": "hi"}]
LIGHT = {
    "name": "set_light",
    "description": "Switch a light",
    "input_schema": {
        "type": "object",
        "properties": {"room": {"type": "string"}, "on": {"type": "boolean"}},
        "required": ["room", "on"],
    },
}
CALL = '<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen", "on": true}}\n</tool_call>'


def url(served, path="/v1/messages"):
    return f"{served.address}{path}"


async def ask(served, path="/v1/messages", headers=None, **body: Any) -> tuple[int, dict[str, Any]]:
    body = {"messages": HI, "max_tokens": 1000, **body}
    async with served.http.post(url(served, path), json=body, headers=headers) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def events(served, **body: Any) -> list[dict[str, Any]]:
    async with served.http.post(url(served), json={"messages": HI, "max_tokens": 1000, "stream": True, **body}) as got:
        assert (got.status, got.content_type) == (200, "text/event-stream")
        return read_events(await got.text())


def read_events(text: str) -> list[dict[str, Any]]:
    found = []
    for frame in text.split("\n\n")[:-1]:
        if frame.startswith(":"):  # a comment
            continue
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


async def test_an_answer_in_one_piece(serve):
    served = await serve(lambda prompt: "Hello!")
    status, message = await ask(served, system="Be kind.", model="claude-sonnet-4-5")
    assert status == 200
    assert message.pop("id").startswith("msg_")
    usage = message.pop("usage")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "fake",
        "content": [{"type": "text", "text": "Hello!"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    assert usage["output_tokens"] == 6 + 1
    assert usage["input_tokens"] > 0
    assert (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (0, 0)


@pytest.mark.parametrize("path", ["/messages", "/v1/messages/", "/messages/", "/v1/messages?beta=true"])
async def test_the_path_has_other_spellings(serve, path):
    assert (await ask(await serve(), path))[0] == 200


async def test_a_stream_has_the_events_in_order(serve):
    served = await serve(lambda prompt: "<think>\nhm\n</think>\n\nHi 🙂你")
    got = await events(served, thinking={"type": "enabled", "budget_tokens": 1024})
    kinds = [event["type"] for event in got]
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert got[0]["message"]["content"] == []
    blocks = [event["content_block"] for event in got if event["type"] == "content_block_start"]
    assert blocks == [{"type": "thinking", "thinking": "", "signature": ""}, {"type": "text", "text": ""}]
    deltas = [event["delta"] for event in got if event["type"] == "content_block_delta"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == "hm"
    texts = [delta["text"] for delta in deltas if delta["type"] == "text_delta"]
    assert texts == ["H", "i", " ", "🙂", "你"]  # a token of this model is a byte
    assert [delta["type"] for delta in deltas].count("signature_delta") == 1
    assert got[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert got[-2]["usage"]["output_tokens"] > 0


async def test_a_stream_and_a_whole_answer_count_the_same(serve):
    served = await serve(lambda prompt: "Hello!")
    streamed = (await events(served))[-2]["usage"]
    _, whole = await ask(served)
    assert whole["usage"]["output_tokens"] == streamed["output_tokens"]
    read = whole["usage"]["cache_read_input_tokens"]
    assert read > 0
    assert whole["usage"]["input_tokens"] + read == streamed["input_tokens"] + streamed["cache_read_input_tokens"]


async def test_without_thinking_in_the_request_the_first_block_is_the_answer(serve):
    prompts = []
    served = await serve(lambda prompt: prompts.append(prompt) or "Hello!")
    _, message = await ask(served)
    assert message["content"][0]["text"] == "Hello!"
    assert prompts[0].endswith("<think>\n\n</think>\n\n")
    await ask(served, thinking={"type": "enabled", "budget_tokens": 1024})
    assert prompts[1].endswith("<|im_start|>assistant\n")


async def test_a_call_and_its_result(serve):
    prompts = []

    def script(prompt: str) -> str:
        prompts.append(prompt)
        return "It is on." if "done" in prompt else CALL

    served = await serve(script)
    _, first = await ask(served, tools=[LIGHT])
    [call] = first["content"]
    assert call.pop("id").startswith("toolu_")
    assert call == {"type": "tool_use", "name": "set_light", "input": {"room": "kitchen", "on": True}}
    assert first["stop_reason"] == "tool_use"
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "done"}]}
    turns = [*HI, {"role": "assistant", "content": [{**call, "id": "toolu_1"}]}, {"role": "user", "content": [result]}]
    _, second = await ask(served, tools=[LIGHT], messages=turns)
    assert second["content"] == [{"type": "text", "text": "It is on."}]
    assert "<|im_start|>tool\ndone<|im_end|>" in prompts[-1]


async def test_a_streamed_call_comes_in_pieces_of_json(serve):
    served = await serve(lambda prompt: f"I do.\n{CALL}\n{CALL}")
    got = await events(served, tools=[LIGHT])
    blocks = [event["content_block"]["type"] for event in got if event["type"] == "content_block_start"]
    assert blocks == ["text", "tool_use", "tool_use"]
    for index in (1, 2):
        mine = [event["delta"] for event in got if event.get("index") == index and "delta" in event]
        assert {delta["type"] for delta in mine} == {"input_json_delta"}
        assert len(mine) > 1
        assert json.loads("".join(delta["partial_json"] for delta in mine)) == {"room": "kitchen", "on": True}
    assert got[-2]["delta"]["stop_reason"] == "tool_use"


async def test_one_call_at_a_time_where_it_is_asked_for(serve):
    served = await serve(lambda prompt: f"{CALL}\n{CALL}")
    choice = {"type": "any", "disable_parallel_tool_use": True}
    _, message = await ask(served, tools=[LIGHT], tool_choice=choice)
    assert [block["type"] for block in message["content"]] == ["tool_use"]


async def test_the_stop_text_that_ended_the_answer_is_told(serve):
    served = await serve(lambda prompt: "one two three")
    _, message = await ask(served, stop_sequences=["three", "two"])
    assert message["content"][0]["text"] == "one "
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "two")
    got = await events(served, stop_sequences=["thr"])
    assert got[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "thr"}
    _, message = await ask(served, stop_sequences=["four"])
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)


async def test_a_stop_text_in_the_last_token_that_fits_is_no_limit(serve):
    served = await serve(lambda prompt: "one\ntwo" if LIGHT["name"] in prompt else "one two")
    _, message = await ask(served, stop_sequences=["o"], max_tokens=7)
    assert message["stop_reason"] == "stop_sequence"
    # the line break is held back to the end, because a call could follow it
    _, message = await ask(served, stop_sequences=["\n"], max_tokens=4, tools=[LIGHT])
    assert (message["content"][0]["text"], message["stop_reason"]) == ("one", "stop_sequence")


async def test_a_limit_ends_in_max_tokens(serve):
    _, message = await ask(await serve(lambda prompt: "Hello!"), max_tokens=2)
    assert (message["content"][0]["text"], message["stop_reason"]) == ("He", "max_tokens")


async def test_a_last_message_of_the_assistant_is_continued(serve):
    prompts = []
    served = await serve(lambda prompt: prompts.append(prompt) or " light is on.")
    _, message = await ask(served, messages=[*HI, {"role": "assistant", "content": "The"}])
    assert message["content"][0]["text"] == " light is on."
    assert prompts[0].endswith("</think>\n\nThe")


async def test_an_answer_keeps_its_schema(serve):
    served = await serve(lambda prompt: '{"room":"kitchen"}')
    schema = {"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]}
    _, message = await ask(served, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(message["content"][0]["text"]) == {"room": "kitchen"}


async def test_tokens_are_counted_without_an_answer(serve):
    served = await serve(lambda prompt: "Hello!")
    body = {"system": "Be kind.", "tools": [LIGHT]}
    status, counted = await ask(served, "/v1/messages/count_tokens", max_tokens=None, **body)
    assert status == 200
    _, message = await ask(served, **body)
    assert counted == {"input_tokens": message["usage"]["input_tokens"]}
    assert (await ask(served, "/messages/count_tokens", **body))[1] == counted
    assert (await ask(served, "/v1/messages/count_tokens", max_tokens=None, messages=[]))[0] == 400


async def test_cache_control_pins_the_prompt_and_is_counted(serve):
    served = await serve(lambda prompt: "Hello!")
    system = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    _, first = await ask(served, system=system)
    async with served.http.get(f"{served.address}/v1/cache") as response:
        [pinned] = (await response.json())["data"]
    assert pinned["pinned_until"] - time.time() == pytest.approx(3600, abs=600)
    _, second = await ask(served, system=system)
    assert first["usage"]["cache_read_input_tokens"] == 0 < first["usage"]["cache_creation_input_tokens"]
    assert second["usage"]["cache_read_input_tokens"] > 0
    assert first["usage"]["input_tokens"] == second["usage"]["input_tokens"] == 0


# errors


async def refusal(response) -> tuple[int, str]:
    body = await response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert response.headers["request-id"] == body["request_id"]
    return response.status, body["error"]["type"]


async def test_every_refusal_has_the_form_of_this_api(serve):
    served = await serve(keys=Keys({"sesame-sesame-sesame": "one"}))
    key = {"x-api-key": "sesame-sesame-sesame"}
    http, here = served.http, url(served)
    async with http.post(here, json={"messages": HI, "max_tokens": 1}) as response:
        assert await refusal(response) == (401, "authentication_error")
    async with http.post(here, json={"messages": HI, "max_tokens": 1}, headers=key) as response:
        assert response.status == 200
    async with http.post(here, data=b"{no json", headers=key) as response:
        assert await refusal(response) == (400, "invalid_request_error")
    async with http.post(here, json={"messages": HI}, headers=key) as response:
        assert await refusal(response) == (400, "invalid_request_error")
    async with http.post(here, data=b"x", headers={**key, "Content-Encoding": "br"}) as response:
        assert await refusal(response) == (415, "invalid_request_error")
    async with http.get(here, headers=key) as response:
        assert await refusal(response) == (405, "invalid_request_error")
        assert "POST" in response.headers["Allow"]
    async with http.post(url(served, "/v1/messages/batches"), json={}, headers=key) as response:
        assert await refusal(response) == (404, "not_found_error")
    async with http.post(url(served, "/v1/complete"), json={}, headers={**key, "anthropic-version": "1"}) as response:
        assert await refusal(response) == (404, "not_found_error")
    async with http.post(url(served, "/v1/complete"), json={}, headers=key) as response:
        assert "param" in (await response.json())["error"]  # OpenAI's


async def test_a_body_that_is_too_large_and_a_prompt_that_is_too_long(serve):
    served = await serve(settings="  max_body_bytes: 5000\n", context=100)
    async with served.http.post(url(served), data=b"x" * 6000) as response:
        assert await refusal(response) == (413, "request_too_large")
    status, body = await ask(served, messages=[{"role": "user", "content": "x" * 200}])
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert body["error"]["message"].startswith("prompt is too long")


async def test_another_model_is_not_found(serve):
    served = await serve(settings="  model_names: listed\n")
    status, body = await ask(served, model="claude")
    assert (status, body["error"]["type"]) == (404, "not_found_error")
    assert (await ask(served, model="fake"))[0] == 200


async def test_a_server_that_is_busy_is_overloaded_and_says_when_to_come_again(serve):
    gate = threading.Event()
    served = await serve(settings="  max_waiting: 0\nengine:\n  parallel: 1\n", gate=gate)
    first = asyncio.create_task(ask(served))
    await until(lambda: served.begun)
    async with served.http.post(url(served), json={"messages": HI, "max_tokens": 1}) as response:
        assert await refusal(response) == (529, "overloaded_error")
        assert int(response.headers["Retry-After"]) > 0
    gate.set()
    assert (await first)[0] == 200


async def test_an_error_after_the_first_byte_is_an_event(serve):
    served = await serve(lambda prompt: "x" * 2000)
    async with served.http.post(url(served), json={"messages": HI, "max_tokens": 3000, "stream": True}) as response:
        first = await response.content.readuntil(b"content_block_delta")
        served.engines[-1].kill()
        rest = await response.content.read()
    got = read_events((first + rest).decode())
    assert got[-1]["type"] == "error"
    assert got[-1]["error"]["type"] == "overloaded_error"
    assert got[-1]["request_id"].startswith("req_")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_frees_its_place(serve, stream):
    gate = threading.Event()
    served = await serve(lambda prompt: "x" * 3000, gate=gate)
    async with raw(served) as (_, writer):
        writer.write(post("/v1/messages", max_tokens=3000, stream=stream))
        await until(lambda: served.begun)
    gate.set()
    await until(lambda: served.supervisor.pending == 0)
    _, message = await ask(served, max_tokens=1)
    assert message["usage"]["output_tokens"] == 1


# models


async def test_models_are_listed_in_the_form_of_the_client(serve):
    served = await serve()
    header = {"anthropic-version": "2023-06-01"}
    async with served.http.get(url(served, "/v1/models"), headers=header) as response:
        listed = await response.json()
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("fake", "fake", False)
    [model] = listed["data"]
    assert (model["type"], model["id"], model["display_name"]) == ("model", "fake", "fake")
    assert model["created_at"].endswith("Z")
    async with served.http.get(url(served, "/v1/models/fake"), headers=header) as response:
        assert await response.json() == model
    async with served.http.get(url(served, "/v1/models")) as response:
        assert (await response.json())["object"] == "list"


async def test_a_model_that_is_not_there_is_told_in_the_form_of_the_client(serve):
    served = await serve(settings="  model_names: listed\n")
    for header, form in (({"anthropic-version": "2023-06-01"}, "not_found_error"), ({}, "invalid_request_error")):
        async with served.http.get(url(served, "/v1/models/gpt"), headers=header) as response:
            assert response.status == 404
            assert (await response.json())["error"]["type"] == form


async def test_the_request_of_claude_code(serve):
    """As Claude Code sends it: many tools, marked system blocks, the beta query, adaptive thinking."""
    served = await serve(lambda prompt: "<think>\nhm\n</think>\n\nHello!", context=16384)
    mark = {"type": "ephemeral", "ttl": "1h", "scope": "global"}
    tools = [{**LIGHT, "name": f"tool_{number}", "eager_input_streaming": True} for number in range(20)]
    body = {
        "model": "claude-opus-4-6",
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>be brief</system-reminder>\n"},
            {"type": "text", "text": "hi", "cache_control": mark}]}],
        "system": [{"type": "text", "text": "You are Claude Code."},
                   {"type": "text", "text": "Rules.", "cache_control": mark}],
        "tools": tools,
        "metadata": {"user_id": json.dumps({"device_id": "d", "session_id": "s"})},
        "max_tokens": 32000,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "temperature": 1,
        "stream": True,
    }  # fmt: skip
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "claude-code-20250219", "authorization": "Bearer x"}
    async with served.http.post(url(served, "/v1/messages?beta=true"), json=body, headers=headers) as response:
        assert response.status == 200
        got = read_events(await response.text())
    blocks = [event["content_block"]["type"] for event in got if event["type"] == "content_block_start"]
    assert blocks == ["thinking", "text"]
    assert got[-1]["type"] == "message_stop"
