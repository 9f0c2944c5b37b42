"""Chat completions with the openai package, sync and async."""

import json
from typing import Literal

import openai
import pydantic
import pytest

HOW = {"model": "gpt-5-mini"}  # a name that another server has: this one answers with its own model
LIGHT = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Switch a light on or off.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "state": {"type": "string", "enum": ["on", "off"]}},
            "required": ["room", "state"],
        },
    },
}


class Command(pydantic.BaseModel):
    room: str
    state: Literal["on", "off"]


def user(text: str) -> list:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(scripted):
    with openai.OpenAI(base_url=scripted.v1, api_key=scripted.key) as client:
        yield client


@pytest.fixture
async def asynchronous(scripted):
    async with openai.AsyncOpenAI(base_url=scripted.v1, api_key=scripted.key) as client:
        yield client


def test_an_answer_has_its_text_reason_id_and_usage(client):
    answer = client.chat.completions.create(**HOW, messages=user("@say It is on."))
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "It is on.", "stop")
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens == len("It is on.") + 1


async def test_the_async_client_gets_the_same_answers_at_once(asynchronous):
    import asyncio

    asked = [asynchronous.chat.completions.create(**HOW, messages=user(f"@say {number}")) for number in range(12)]
    answers = await asyncio.gather(*asked)
    assert [answer.choices[0].message.content for answer in answers] == [str(number) for number in range(12)]
    assert len({answer.id for answer in answers}) == 12


def test_a_stream_has_reasoning_text_reason_and_usage(client):
    asked = {"messages": user("@think Hm.\n@say It is on. 好的 🙂"), "stream_options": {"include_usage": True}}
    asked["extra_body"] = {"enable_thinking": True}
    chunks = list(client.chat.completions.create(**HOW, **asked, stream=True))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "Hm."
    assert "".join(delta.content or "" for delta in deltas) == "It is on. 好的 🙂"
    assert deltas[0].role == "assistant"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_async_client_streams(asynchronous):
    stream = await asynchronous.chat.completions.create(**HOW, messages=user("@say It is on."), stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "It is on."


def test_the_stream_helper_gives_events_and_the_whole(client):
    with client.chat.completions.stream(**HOW, messages=user("@say It is on.")) as stream:
        kinds = {event.type for event in stream}
        whole = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert whole.choices[0].message.content == "It is on."


def test_an_answer_is_parsed_into_a_pydantic_model(client):
    asked = {"messages": user('@say {"room":"kitchen","state":"on"}'), "response_format": Command}
    answer = client.chat.completions.parse(**HOW, **asked)
    assert answer.choices[0].message.parsed == Command(room="kitchen", state="on")


async def test_the_async_client_parses_a_stream(asynchronous):
    asked = {"messages": user('@say {"room":"kitchen","state":"on"}'), "response_format": Command}
    async with asynchronous.chat.completions.stream(**HOW, **asked) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.parsed == Command(room="kitchen", state="on")


def test_a_json_object_is_json(client):
    asked = {"messages": user('@say {"on":true}'), "response_format": {"type": "json_object"}}
    answer = client.chat.completions.create(**HOW, **asked)
    assert json.loads(answer.choices[0].message.content) == {"on": True}


@pytest.mark.parametrize(
    "choice",
    [
        "auto",
        "required",
        {"type": "function", "function": {"name": "set_light"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "set_light"}}]},
        },
    ],
    ids=["auto", "required", "named", "allowed"],
)
def test_a_tool_is_called_and_its_result_is_answered(client, choice):
    script = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.'
    first = client.chat.completions.create(**HOW, messages=user(script), tools=[LIGHT], tool_choice=choice)
    message = first.choices[0].message
    (call,) = message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls"
    assert (call.type, call.function.name) == ("function", "set_light")
    assert json.loads(call.function.arguments) == {"room": "kitchen", "state": "on"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    second = client.chat.completions.create(**HOW, messages=[*user(script), message, result], tools=[LIGHT])
    assert second.choices[0].message.content == "It is on."


def test_no_tool_is_called_if_the_choice_is_none(client):
    asked = {"messages": user("@say It is dark."), "tools": [LIGHT], "tool_choice": "none"}
    message = client.chat.completions.create(**HOW, **asked).choices[0].message
    assert (message.content, message.tool_calls) == ("It is dark.", None)


def test_two_calls_are_streamed_with_their_numbers(client):
    script = '@call set_light {"room": "kitchen", "state": "on"}\n@call set_light {"room": "bath", "state": "off"}'
    calls, ids, reasons = {}, {}, []
    for chunk in client.chat.completions.create(**HOW, messages=user(script), tools=[LIGHT], stream=True):
        for choice in chunk.choices:
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for call in choice.delta.tool_calls or []:
                calls[call.index] = calls.get(call.index, "") + call.function.arguments
                ids.setdefault(call.index, call.id)
    assert [json.loads(calls[index])["room"] for index in (0, 1)] == ["kitchen", "bath"]
    assert len(set(ids.values()) - {None}) == 2
    assert reasons == ["tool_calls"]


def test_a_strict_tool_gives_parsed_arguments(client):
    tool = openai.pydantic_function_tool(Command)
    asked = {"messages": user('@call Command {"room": "bath", "state": "off"}'), "tools": [tool]}
    answer = client.chat.completions.parse(**HOW, **asked, tool_choice="required")
    assert answer.choices[0].message.tool_calls[0].function.parsed_arguments == Command(room="bath", state="off")


def test_several_answers_logprobs_stop_and_limit(client):
    several = client.chat.completions.create(**HOW, messages=user("@say Yes."), n=2, logprobs=True, top_logprobs=1)
    assert [choice.index for choice in several.choices] == [0, 1]
    assert "".join(one.token for one in several.choices[0].logprobs.content).startswith("Yes.")
    stopped = client.chat.completions.create(**HOW, messages=user("@say one two three"), stop=["two"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("one ", "stop")
    cut = client.chat.completions.create(**HOW, messages=user("@say one two three"), max_completion_tokens=5)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("one t", "length")


def test_an_effort_switches_thinking_on_and_off(client):
    script = user("@think Hm.\n@say Yes.")
    for effort, thoughts in ((None, None), ("none", None), ("low", "Hm.")):
        asked = {"reasoning_effort": effort} if effort else {}
        message = client.chat.completions.create(**HOW, messages=script, **asked).choices[0].message
        assert message.content == "Yes."
        assert getattr(message, "reasoning_content", None) == thoughts


def test_content_parts_and_the_developers_role_are_read(client):
    parts = [{"type": "text", "text": "@say "}, {"type": "text", "text": "Both."}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert client.chat.completions.create(**HOW, messages=messages).choices[0].message.content == "Both."


def test_fields_for_openais_own_servers_do_no_harm(client):
    hints = {"store": False, "metadata": {"a": "b"}, "service_tier": "auto", "user": "me", "verbosity": "low"}
    answer = client.chat.completions.create(**HOW, messages=user("@say Yes."), seed=1, **hints)
    assert answer.choices[0].message.content == "Yes."


def test_a_stream_that_is_left_frees_its_place(client, broken_off):
    with client.chat.completions.create(**HOW, messages=user("@words 5000"), stream=True) as stream:
        for _ in range(3):
            next(stream)
    broken_off()


async def test_a_cancelled_request_frees_its_place(asynchronous, broken_off):
    import asyncio

    asked = asyncio.ensure_future(asynchronous.chat.completions.create(**HOW, messages=user("@words 5000")))
    await asyncio.sleep(0)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asked, 0.5)
    broken_off()


def test_errors_are_the_packages_own(client, scripted):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**HOW, messages=user("hi"), temperature=-1)
    assert error.value.param == "temperature"
    stranger = openai.OpenAI(base_url=scripted.v1, api_key="sk-of-somebody-else")
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(**HOW, messages=user("hi"))
    with pytest.raises(openai.NotFoundError):
        client.post("/nothing", cast_to=object)


def test_the_model_is_listed_and_found(client):
    (model,) = client.models.list()
    assert client.models.retrieve(model.id).id == model.id
    assert model.object == "model"


def test_the_demo_model_calls_the_tool_that_the_command_needs(demo):
    with openai.OpenAI(base_url=demo.v1, api_key=demo.key) as client:
        answer = client.chat.completions.create(
            **HOW,
            messages=user("Turn on the kitchen light"),
            tools=[LIGHT],
            temperature=0,
            extra_body={"enable_thinking": False},
        )
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"room": "kitchen", "state": "on"}


def test_an_image_is_refused_by_name(client):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**HOW, messages=[{"role": "user", "content": [image]}])
    assert error.value.param.startswith("messages[0].content")
