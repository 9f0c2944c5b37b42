"""Every refusal is OpenAI's error object with the right status, and names what is wrong."""

import asyncio
import threading

import pytest

from qwen_edge.auth.keys import Keys
from qwen_edge.server.openai.chat_body import ChatBody
from tests.server.raw import raw
from tests.waiting import until

MESSAGES = [{"role": "user", "content": "hi"}]


async def refused(served, body, **options):
    async with served.post(body, **options) as response:
        error = (await response.json())["error"]
        assert set(error) - {"n_prompt_tokens", "n_ctx"} == {"message", "type", "param", "code"}
        return response.status, error


@pytest.mark.parametrize(
    ("body", "param", "part"),
    [
        ({}, "messages", "Missing required parameter: 'messages'"),
        ({"messages": []}, "messages", "length >= 1"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "robot"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "int"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "image_url",
        ),
        ({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, "messages[0].images", "not supported"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio", "not supported"),
        ({"messages": [{**MESSAGES[0], "prefix": True}]}, "messages[0].prefix", "last message"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]", "field text"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0]", "field type"),
        ({"messages": None}, "messages", "Missing required parameter: 'messages'"),
        (
            {"messages": MESSAGES, "stream_options": {"every_second": True}},
            "stream_options.every_second",
            "Unknown parameter",
        ),
        ({"messages": MESSAGES, "temperature": 3}, "temperature", "<= 2"),
        ({"messages": MESSAGES, "top_p": -1}, "top_p", ">= 0"),
        ({"messages": MESSAGES, "max_tokens": 0}, "max_tokens", "1 or more"),
        ({"messages": MESSAGES, "max_tokens": 10**30}, "max_tokens", "<= 2147483647"),
        ({"messages": MESSAGES, "max_tokens": 1e300}, "max_tokens", "<= 2147483647"),
        ({"messages": MESSAGES, "top_k": 2**40}, "top_k", "<= 2147483647"),
        ({"messages": MESSAGES, "max_tokens": 7.5}, "max_tokens", "int"),
        ({"messages": MESSAGES, "modalities": ["audio"]}, "modalities[0]", "must be one of text"),
        ({"messages": MESSAGES, "stop": list("abcdefghijklmnopqr")}, "stop", "length <= 16"),
        ({"messages": MESSAGES, "temprature": 1}, "temprature", "Unknown parameter"),
        ({"messages": MESSAGES, "n": 0}, "n", ">= 1"),
        ({"messages": MESSAGES, "repetition_penalty": 1e-300}, "repetition_penalty", ">= 0.01"),
        ({"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"messages": MESSAGES, "logit_bias": {"word": 1}}, "logit_bias", "matching regex"),
        ({"messages": MESSAGES, "logit_bias": {"5": 101}}, "logit_bias[...]", "<= 100"),
        ({"messages": MESSAGES, "priority": "now"}, "priority", "Invalid enum value"),
        ({"messages": MESSAGES, "response_format": {"type": "xml"}}, "response_format.type", "is unknown"),
        ({"messages": MESSAGES, "tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools[0]", "function"),
        ({"messages": MESSAGES, "x_volatile": "yes"}, "x_volatile", "bool"),
        (
            {"messages": [{"role": "system", "content": "<volatile>x"}, *MESSAGES], "x_volatile": True},
            "messages",
            "messages[0]: a <volatile> is never closed",
        ),
        (
            {
                "messages": [{"role": "system", "content": "x</volatile>"}, *MESSAGES],
                "x_volatile": True,
                "stream": True,
            },
            "messages",
            "messages[0]: there is a </volatile> with no <volatile> before it",
        ),
        ({"messages": MESSAGES, "tools": [{"type": "magic", "function": {"name": "x"}}]}, "tools[0].type", "magic"),
        ({"messages": MESSAGES, "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "messages"),
        (
            {"messages": MESSAGES, "chat_template_kwargs": {"enable_thinking": "no"}},
            "chat_template_kwargs",
            "true or false",
        ),
    ],
)
async def test_a_bad_parameter_is_named(serve, body, param, part):
    status, error = await refused(await serve(), body)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert part in error["message"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"messages": ' + b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_refused(serve, data):
    served = await serve()
    async with served.http.post(f"{served.address}/v1/chat/completions", data=data) as response:
        assert response.status == 400
        assert "body" in (await response.json())["error"]["message"]
    assert (await served.ask())[0] == 200


async def test_tools_nested_too_deeply_are_refused(serve):
    served = await serve()
    for depth in (100, 400, 800, 950):
        nested = '{"a": [' * depth + "]}" * depth
        tool = f'{{"type": "function", "function": {{"name": "x", "parameters": {nested}}}}}'
        body = f'{{"messages": [{{"role": "user", "content": "hi"}}], "tools": [{tool}]}}'
        async with served.http.post(f"{served.address}/v1/chat/completions", data=body) as response:
            assert response.status in (200, 400), await response.text()
    assert response.status == 400


async def test_whole_numbers_may_be_written_with_a_point(serve):
    status, answer = await (await serve(lambda prompt: "a long answer")).ask(
        max_tokens=6.0, top_k=20.0, temperature=1.0
    )
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "a long"


async def test_values_a_server_without_the_feature_can_honour_are_accepted(serve):
    served = await serve()
    neutral = {"n": 1, "logprobs": False, "tool_choice": "auto", "response_format": {"type": "text"}, "store": False}
    neutral |= {"modalities": ["text"]}
    status, _ = await served.ask(**neutral, user="me", metadata={"a": "b"}, logit_bias={})
    assert status == 200


async def test_unknown_parameters_pass_where_the_configuration_lets_them(serve):
    served = await serve(settings="  unknown_parameters: ignore\n")
    status, _ = await served.ask(temprature=1, stream_options={"every_second": True})
    assert status == 200
    status, error = await refused(served, {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]})
    assert (status, error["param"]) == (400, "messages[0].images")  # it would change the answer


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "Hello", "reasoning": "x", "reasoning_details": [{"type": "text"}]},
        {"role": "assistant", "content": "Hello", "refusal": None, "audio": None, "function_call": None},
        {"role": "assistant", "content": None, "refusal": "Hello"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Hello"}]},
        {"role": "assistant", "content": "Hello", "id": "m1", "status": "completed", "images": [], "prefix": False},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [{"type": "text", "text": None}, {"type": "text", "text": "Hello", "id": 1}]},
        {"role": "assistant", "content": "Hello", "tool_calls": None, "name": None, "mood": "good"},
    ],
    ids=str,
)
async def test_fields_of_a_message_that_say_nothing_to_the_model_are_left_out(serve, message):
    prompts = []
    served = await serve(lambda prompt: prompts.append(prompt) or "ok")
    async with served.post({"messages": [*MESSAGES, message, *MESSAGES]}) as response:
        assert response.status == 200, await response.text()
    plain = {"role": "assistant", "content": "Hello"}
    async with served.post({"messages": [*MESSAGES, plain, *MESSAGES]}) as response:
        assert response.status == 200
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("arguments", [{}, {"arguments": None}, {"arguments": ""}, {"arguments": "{}"}], ids=str)
async def test_a_call_of_the_history_may_leave_its_arguments_out(serve, arguments):
    prompts = []
    served = await serve(lambda prompt: prompts.append(prompt) or "ok")
    call = {"id": None, "type": None, "function": {"name": "f", **arguments}}
    history = [*MESSAGES, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "1"}]
    async with served.post({"messages": history}) as response:
        assert response.status == 200, await response.text()
    assert '"name": "f"' in prompts[0]


async def test_null_is_as_if_the_parameter_were_left_out(serve):
    served = await serve()
    names = [name for name in ChatBody.__struct_fields__ if name != "messages"]
    status, answer = await served.ask(**dict.fromkeys(names), temprature=None)
    assert status == 200, answer
    status, answer = await served.ask(stream_options={"include_usage": None, "x": None}, response_format={"type": None})
    assert status == 200, answer


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "enum": [None]}}
TOOL = {"type": "function", "function": FUNCTION}


@pytest.mark.parametrize(
    ("with_null", "without"),
    [
        ({"chat_template_kwargs": {"messages": None}}, {}),
        ({"chat_template_kwargs": {"tools": None, "enable_thinking": None}}, {}),
        ({"chat_template_kwargs": {"add_generation_prompt": None}}, {}),
        ({"logit_bias": {"5": None, "6": -1}}, {"logit_bias": {"6": -1}}),
        ({"stop": [None]}, {}),
        ({"stop": [None, "lo"]}, {"stop": ["lo"]}),
        ({"modalities": []}, {}),
        ({"modalities": [None]}, {}),
        ({"modalities": ["text", None]}, {}),
        ({"tools": [None]}, {}),
        ({"tools": []}, {}),
        ({"tools": [None, TOOL]}, {"tools": [TOOL]}),
        ({"tools": [{"function": FUNCTION}]}, {"tools": [TOOL]}),
        ({"tools": [{"type": None, "function": FUNCTION}]}, {"tools": [TOOL]}),
        (
            {"tools": [{"function": {"name": "f", "description": None, "parameters": None, "strict": None}}]},
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
        ),
        ({"stream_options": {"include_usage": None, "x": None}}, {}),
        ({"response_format": {"type": None, "json_schema": None}}, {}),
        (
            {"messages": [*MESSAGES, {"role": "assistant", "content": [None, {"type": "text", "text": "x"}]}]},
            {"messages": [*MESSAGES, {"role": "assistant", "content": "x"}]},
        ),
        (
            {"messages": [*MESSAGES, {"role": "assistant", "content": "x", "tool_calls": [None]}]},
            {"messages": [*MESSAGES, {"role": "assistant", "content": "x"}]},
        ),
        (
            {"messages": [*MESSAGES, {"role": "assistant", "tool_calls": [None, CALL]}]},
            {"messages": [*MESSAGES, {"role": "assistant", "tool_calls": [CALL]}]},
        ),
    ],
    ids=str,
)
async def test_null_inside_a_parameter_is_as_if_it_were_left_out(serve, with_null, without):
    prompts = []
    served = await serve(lambda prompt: prompts.append(prompt) or "Hello!")
    answers = []
    for body in (with_null, without):
        async with served.post({"messages": MESSAGES, **body}) as response:
            assert response.status == 200, await response.text()
            answers.append((await response.json())["choices"])
    assert prompts[0] == prompts[1]
    assert answers[0] == answers[1]


async def test_an_enumeration_of_a_tool_keeps_its_null(serve):
    prompts = []
    served = await serve(lambda prompt: prompts.append(prompt) or "ok")
    assert (await served.ask(tools=[{"function": FUNCTION}]))[0] == 200
    assert '"enum": [null]' in prompts[0]


async def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(serve):
    served = await serve(context=64)
    status, error = await refused(served, {"messages": [{"role": "user", "content": "x" * 100}]})
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert "is 119 tokens long" in error["message"]
    assert "holds 64 tokens" in error["message"]
    assert (error["type"], error["n_prompt_tokens"], error["n_ctx"]) == ("exceed_context_size_error", 119, 64)


async def test_a_stream_that_cannot_start_has_a_status_of_its_own(serve):
    served = await serve(context=64)
    status, error = await refused(served, {"messages": [{"role": "user", "content": "x" * 100}], "stream": True})
    assert (status, error["code"]) == (400, "context_length_exceeded")


async def test_another_model_is_not_found(serve):
    served = await serve(settings="  model_aliases: [gpt-4o]\n  model_names: listed\n")
    for name in ("llama", "fake.GGUF", "fake:8b", ":latest"):
        status, error = await refused(served, {"messages": MESSAGES, "model": name})
        assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert "'fake'" in error["message"]
    for name in ("fake", "fake.gguf", "fake:latest", "gpt-4o", "gpt-4o:latest"):
        assert (await served.ask(model=name))[0] == 200


async def test_any_model_name_is_answered_under_the_models_own(serve):
    served = await serve()
    for name in ("Qwen-0.6B", "Qwen/Qwen3-0.6B", "fake.gguf", "fake:latest", ""):
        status, answer = await served.ask(model=name)
        assert (status, answer["model"]) == (200, "fake")
    async with served.http.get(f"{served.address}/v1/models/Qwen-0.6B") as response:
        assert (response.status, (await response.json())["id"]) == (200, "fake")


async def test_a_body_that_is_too_large_is_refused(serve):
    served = await serve(settings="  max_body_bytes: 1024\n")
    status, _ = await refused(served, {"messages": [{"role": "user", "content": "x" * 2000}]})
    assert status == 413


async def test_unknown_paths_and_methods_are_json_too(serve):
    served = await serve()
    async with served.http.get(f"{served.address}/v2/nothing") as response:
        assert response.status == 404
        assert "error" in await response.json()
    async with served.http.get(f"{served.address}/v1/chat/completions") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
        assert response.content_type == "application/json"


async def test_a_key_is_asked_for_everywhere_but_on_health(serve):
    served = await serve(keys=Keys({"secret-1": "one", "secret-2": "two"}))
    async with served.post({"messages": MESSAGES}) as response:
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (await response.json())["error"]["code"] == "invalid_api_key"
    wrong = {"Authorization": "Bearer secret-3"}
    assert (await refused(served, {"messages": MESSAGES}, headers=wrong))[0] == 401
    async with served.post({"messages": MESSAGES}, headers={"Authorization": "Bearer secret-2"}) as response:
        assert response.status == 200
    assert (await served.health())[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "secret-2"}, 200),
        ({"X-API-Key": "secret-3"}, 401),
        ({"x-api-key": "secret-2", "Authorization": "Bearer none"}, 200),
        ({"x-api-key": "secret-3", "Authorization": "bearer secret-1"}, 200),
        ({"x-api-key": "secret-2", "Authorization": "Basic c2VjcmV0"}, 200),
        ({"x-api-key": ""}, 401),
        ({"Authorization": "secret-1"}, 401),
        ({"Authorization": "Basic secret-1"}, 401),
    ],
)
async def test_a_key_is_taken_from_either_header(serve, headers, status):
    served = await serve(keys=Keys({"secret-1": "one", "secret-2": "two"}))
    async with served.post({"messages": MESSAGES}, headers=headers) as response:
        assert response.status == status


async def test_a_full_queue_turns_new_requests_away_at_once(serve):
    gate = threading.Event()
    served = await serve(settings="  max_waiting: 1\nengine:\n  parallel: 1\n", gate=gate)
    waiting = [asyncio.create_task(served.ask(f"{i}")) for i in range(2)]
    await until(lambda: served.supervisor.pending == 2)
    async with served.post({"messages": MESSAGES}) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
    gate.set()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]


async def test_models_are_listed(serve):
    served = await serve(settings="  model_names: listed\n")
    async with served.http.get(f"{served.address}/v1/models") as response:
        (card,) = (await response.json())["data"]
    assert (card["id"], card["object"], card["context_length"]) == ("fake", "model", 4096)
    async with served.http.get(f"{served.address}/v1/models/fake") as response:
        assert (await response.json())["id"] == "fake"
    async with served.http.get(f"{served.address}/v1/models/other") as response:
        assert response.status == 404


async def test_a_key_that_is_no_text_is_a_wrong_key(serve):
    served = await serve(keys=Keys({"secret": "one"}))
    async with raw(served) as (reader, writer):
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
        assert b" 401 " in await reader.readline()


async def test_a_body_that_never_ends_is_given_up(serve):
    served = await serve(settings="  body_seconds: 0.1\n")
    async with raw(served) as (reader, writer):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in await reader.readline()
    assert (await served.ask())[0] == 200


async def test_a_model_with_a_slash_in_its_name_can_be_asked_for(serve):
    served = await serve(settings="  model_aliases: [Qwen/Qwen3-0.6B]\n  model_names: listed\n")
    async with served.http.get(f"{served.address}/v1/models/Qwen/Qwen3-0.6B") as response:
        assert response.status == 200
    async with served.http.get(f"{served.address}/v1/models/Qwen/other") as response:
        assert response.status == 404
