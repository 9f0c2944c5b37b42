"""What a client really gets is what /openapi.json says: answers, chunks and errors, by every path and parameter."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import pytest

from qwen_edge.auth.keys import Keys
from qwen_edge.server.openai.chat_answer import ChatChunk, ChatCompletion
from qwen_edge.server.openai.errors import ErrorBody

LIGHT = {"name": "light", "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}}}
TOOLS = {"tools": [{"type": "function", "function": LIGHT}]}
FUNCTIONS = {"functions": [LIGHT]}
CALL = '<tool_call>\n{"name": "light", "arguments": {"on": true}}\n</tool_call>'
THOUGHT = "<think>\nHm, well.\n</think>\n\nFive."
LOGPROBS = {"logprobs": True, "top_logprobs": 2}


def script(prompt: str) -> str:
    if "light" in prompt:
        return CALL
    return THOUGHT if "think" in prompt else "Hello! 你好"


async def chunks(served, **body) -> list[ChatChunk]:
    async with served.post({"stream": True, **body}) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        text = await response.text()
    *events, last, nothing = text.split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    return [msgspec.json.decode(event.removeprefix("data: "), type=ChatChunk) for event in events]


def user(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize(
    "body",
    [
        user("hi"),
        {**user("hi"), **LOGPROBS},
        {**user("hi"), "n": 2, "max_tokens": 3},
        {**user("think"), **LOGPROBS},
        {**user("think"), "reasoning_format": "none"},
        {**user("a"), **TOOLS},
        {**user("a"), **TOOLS, **LOGPROBS},
        {**user("a"), **TOOLS, "max_tokens": 50},
        {**user("a"), **FUNCTIONS},
        {**user("a"), **FUNCTIONS, **LOGPROBS, "n": 2},
        {**user("hi"), "response_format": {"type": "json_object"}, "max_tokens": 5},
    ],
    ids=str,
)
async def test_answers_and_chunks_are_of_the_declared_types_and_say_the_same(serve, body):
    served = await serve(script, parallel=2)
    async with served.post(body) as response:
        assert response.status == 200
        whole = msgspec.json.decode(await response.read(), type=ChatCompletion)
    got = await chunks(served, **body, stream_options={"include_usage": True})
    assert got[-1].choices == []
    counts = whole.usage
    assert (got[-1].usage.prompt_tokens, got[-1].usage.completion_tokens) == (
        counts.prompt_tokens,
        counts.completion_tokens,
    )
    for choice in whole.choices:
        mine = [one for chunk in got for one in chunk.choices if one.index == choice.index]
        said = "".join(one.delta.content or "" for one in mine)
        assert said == (choice.message.content or "")
        thought = "".join(one.delta.reasoning_content or "" for one in mine)
        assert thought == (choice.message.reasoning_content or "")
        pieces = [one.delta.function_call for one in mine if one.delta.function_call]
        pieces += [one.delta.tool_calls[0].function for one in mine if one.delta.tool_calls]
        calls = [choice.message.function_call] if choice.message.function_call else []
        calls += [call.function for call in choice.message.tool_calls or ()]
        assert "".join(piece.arguments for piece in pieces) == "".join(call.arguments for call in calls)
        assert [one.finish_reason for one in mine if one.finish_reason] == [choice.finish_reason]


async def test_old_clients_get_a_function_call_whole_and_streamed(serve):
    served = await serve(script)
    status, answer = await served.ask("a", **FUNCTIONS)
    assert status == 200
    (choice,) = answer["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "light", "arguments": '{"on": true}'},
    }
    assert choice["finish_reason"] == "function_call"
    got = [one for chunk in await chunks(served, **user("a"), **FUNCTIONS) for one in chunk.choices]
    pieces = [one.delta.function_call for one in got if one.delta.function_call]
    assert [piece.name for piece in pieces if piece.name] == ["light"]
    assert "".join(piece.arguments for piece in pieces) == '{"on": true}'
    assert not any(one.delta.tool_calls for one in got)
    assert got[-1].finish_reason == "function_call"


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("form", "content", "reasoning"),
    [
        ("none", "<think>Hm, well.</think>Five.", ""),
        ("deepseek", "Five.", "Hm, well."),
        ("auto", "Five.", "Hm, well."),
        (None, "Five.", "Hm, well."),
    ],
)
async def test_reasoning_stands_where_reasoning_format_says(serve, streamed, form, content, reasoning):
    served = await serve(script)
    if streamed:
        deltas = [one.delta for chunk in await chunks(served, **user("think"), reasoning_format=form)
                  for one in chunk.choices]  # fmt: skip
        said = "".join(delta.content or "" for delta in deltas), "".join(d.reasoning_content or "" for d in deltas)
    else:
        message = (await served.ask("think", reasoning_format=form))[1]["choices"][0]["message"]
        said = message["content"], message.get("reasoning_content", "")
    assert said == (content, reasoning)


@pytest.mark.parametrize("streamed", [True, False])
async def test_reasoning_that_is_cut_is_not_closed(serve, streamed):
    served = await serve(script)
    cut = {"reasoning_format": "none", "max_tokens": 11}
    if streamed:
        got = [one for chunk in await chunks(served, **user("think"), **cut) for one in chunk.choices]
        content, reason = "".join(one.delta.content or "" for one in got), got[-1].finish_reason
    else:
        (choice,) = (await served.ask("think", **cut))[1]["choices"]
        content, reason = choice["message"]["content"], choice["finish_reason"]
    assert content.startswith("<think>H")
    assert "</think>" not in content
    assert reason == "length"


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer_goes_on_where_the_client_stopped_and_only_what_is_new_comes(serve, streamed):
    prompts = []

    def counts(prompt: str) -> str:
        prompts.append(prompt)
        return "three."

    served = await serve(counts)
    body = {"messages": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One, two, "}]}
    if streamed:
        said = "".join(one.delta.content or "" for chunk in await chunks(served, **body) for one in chunk.choices)
    else:
        async with served.post(body) as response:
            said = (await response.json())["choices"][0]["message"]["content"]
    assert said == "three."
    assert prompts[0].endswith("<think>\n\n</think>\n\nOne, two, ")


async def test_paths_without_v1_and_with_a_slash_answer_the_same(serve):
    served = await serve(keys=Keys({"secret": "one"}))
    headers = {"x-api-key": "secret"}
    async with served.http.get(f"{served.address}/openapi.json", headers=headers) as response:
        document = await response.json()
    aliases = 0
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for alias in operation.get("x-aliases", ()):
                aliases += 1
                url = served.address + alias.replace("{name}", "fake")
                json_body = user("hi") if operation.get("requestBody") else None
                own = served.address + path.replace("{name}", "fake")
                async with served.http.request(method, own, json=json_body, headers=headers) as response:
                    status = response.status
                async with served.http.request(method, url, json=json_body, headers=headers) as response:
                    assert response.status == status, (path, alias)
                async with served.http.request(method, url, json=json_body) as response:
                    assert response.status == 401, (path, alias)
    assert aliases >= 7
    async with served.http.get(f"{served.address}/v1/models/fake/", headers=headers) as response:
        assert (await response.json())["id"] == "fake"


async def test_the_description_needs_a_key_like_other_paths_and_tells_so(serve):
    served = await serve(keys=Keys({"secret": "one"}))
    async with served.http.get(f"{served.address}/openapi.json") as response:
        assert response.status == 401
    async with served.http.get(f"{served.address}/openapi.json", headers={"x-api-key": "secret"}) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        document = await response.json()
    assert document["security"] == [{"bearer": []}, {"x-api-key": []}]
    jsonschema.Draft202012Validator.check_schema(document["components"]["schemas"]["ChatBody"])


async def test_errors_are_of_the_declared_type_whatever_went_wrong(serve):
    served = await serve()
    asked = [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b'{"messages": []}', 400),
        ("GET", "/v1/chat/completions", None, 405),
        ("GET", "/nothing", None, 404),
        ("DELETE", "/v1/cache/nothing", None, 404),
        ("POST", "/v1/cache/nothing/pin", b'{"hours": -1}', 400),
    ]
    for method, path, data, status in asked:
        async with served.http.request(method, served.address + path, data=data) as response:
            assert response.status == status
            error = msgspec.json.decode(await response.read(), type=ErrorBody).error
            assert error.message
