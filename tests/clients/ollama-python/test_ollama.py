"""The ollama package, sync and async."""

import json
import math

import ollama
import pydantic
import pytest


class Command(pydantic.BaseModel):
    room: str
    on: bool


def set_light(room: str, state: str) -> str:
    """Switch a light on or off.

    Args:
        room: the room the light is in
        state: on or off
    """
    return f"{room} {state}"


CALL = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.'
HOW = {"model": "qwen3:0.6b"}  # as `ollama pull` would name it


def user(text: str) -> list:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(scripted):
    return ollama.Client(host=scripted.address, headers={"Authorization": f"Bearer {scripted.key}"})


def test_a_chat_has_its_text_reason_and_counts(client):
    answer = client.chat(**HOW, messages=user("@say It is on."))
    assert (answer.message.role, answer.message.content) == ("assistant", "It is on.")
    assert (answer.done, answer.done_reason) == (True, "stop")
    assert answer.eval_count == len("It is on.") + 1
    assert answer.prompt_eval_count > 0
    assert min(answer.total_duration, answer.eval_duration, answer.prompt_eval_duration) > 0
    assert answer.total_duration >= answer.eval_duration


def test_a_chat_streams(client):
    parts = list(client.chat(**HOW, messages=user("@say It is 好 🙂"), stream=True))
    assert "".join(part.message.content or "" for part in parts) == "It is 好 🙂"
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


async def test_the_async_client_streams(scripted):
    client = ollama.AsyncClient(host=scripted.address, headers={"Authorization": f"Bearer {scripted.key}"})
    parts = [part async for part in await client.chat(**HOW, messages=user("@say It is on."), stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "It is on."


@pytest.mark.parametrize(("think", "thoughts"), [(True, "Hm."), (False, None)])
def test_thinking_is_a_field_of_its_own(client, think, thoughts):
    answer = client.chat(**HOW, messages=user("@think Hm.\n@say Yes."), think=think)
    assert ((answer.message.thinking or "").strip() or None, answer.message.content) == (thoughts, "Yes.")


def test_a_function_is_called_and_its_result_is_answered(client):
    messages = user(CALL)
    first = client.chat(**HOW, messages=messages, tools=[set_light])
    (call,) = first.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("set_light", {"room": "kitchen", "state": "on"})
    result = {"role": "tool", "tool_name": "set_light", "content": set_light(**call.function.arguments)}
    second = client.chat(**HOW, messages=[*messages, first.message, result], tools=[set_light])
    assert second.message.content == "It is on."


def test_a_call_comes_in_a_stream(client):
    parts = list(client.chat(**HOW, messages=user(CALL), tools=[set_light], stream=True))
    (call,) = [call for part in parts for call in part.message.tool_calls or []]
    assert call.function.arguments == {"room": "kitchen", "state": "on"}


def test_a_format_gives_what_the_model_validates(client):
    asked = {"messages": user('@say {"room":"kitchen","on":true}')}
    answer = client.chat(**HOW, **asked, format=Command.model_json_schema())
    assert Command.model_validate_json(answer.message.content) == Command(room="kitchen", on=True)
    assert json.loads(client.chat(**HOW, **asked, format="json").message.content)["on"] is True


def test_a_prompt_is_answered(client):
    answer = client.generate(**HOW, prompt="@say It is on.", system="Be brief.")
    assert (answer.response, answer.done_reason) == ("It is on.", "stop")
    parts = list(client.generate(**HOW, prompt="@say It is on.", stream=True))
    assert "".join(part.response for part in parts) == "It is on."


def test_options_are_honoured(client):
    asked = {"messages": user("@say one two three")}
    cut = client.chat(**HOW, **asked, options={"num_predict": 5, "num_ctx": 4096, "temperature": 0}, keep_alive="5m")
    assert (cut.message.content, cut.done_reason) == ("one t", "length")
    assert client.chat(**HOW, **asked, options={"stop": ["two"]}).message.content == "one "


def test_the_model_is_listed_and_described(client):
    (model,) = client.list().models
    shown = client.show(model.model)
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities)
    assert model.size >= 0
    assert shown.details.format == "gguf"
    assert [one.model for one in client.ps().models] == [model.model]


def test_a_model_that_is_there_is_pulled_at_once(client):
    (model,) = client.list().models
    assert client.pull(model.model).status == "success"
    assert [part.status for part in client.pull(model.model, stream=True)][-1] == "success"


def test_texts_get_vectors_of_length_one(demo):
    client = ollama.Client(host=demo.address)
    answer = client.embed(**HOW, input=["the kitchen light", "the bath fan"])
    assert len(answer.embeddings) == 2
    assert all(math.isclose(math.hypot(*one), 1, rel_tol=1e-3) for one in answer.embeddings)
    assert len(client.embeddings(**HOW, prompt="the kitchen light").embedding) == len(answer.embeddings[0])


def test_a_stream_that_is_left_frees_its_place(client, broken_off):
    stream = client.chat(**HOW, messages=user("@words 5000"), stream=True)
    for _ in range(3):
        next(stream)
    stream.close()
    broken_off()


def test_errors_are_the_packages_own(client, scripted):
    with pytest.raises(ollama.ResponseError) as error:
        client.chat(**HOW, messages=user("hi"), options={"temperature": -1})
    assert error.value.status_code == 400
    assert "temperature" in error.value.error
    stranger = ollama.Client(host=scripted.address, headers={"Authorization": "Bearer sk-of-somebody-else"})
    with pytest.raises(ollama.ResponseError) as error:
        stranger.chat(**HOW, messages=user("hi"))
    assert error.value.status_code == 401


def test_the_demo_model_calls_the_function_that_the_command_needs(demo):
    client = ollama.Client(host=demo.address)
    asked = {"messages": user("Turn on the kitchen light"), "tools": [set_light], "options": {"temperature": 0}}
    answer = client.chat(**HOW, **asked, think=False)
    (call,) = answer.message.tool_calls
    assert call.function.arguments == {"room": "kitchen", "state": "on"}


def test_what_this_server_cannot_do_is_refused_by_name(client):
    with pytest.raises(ollama.ResponseError, match="images"):
        client.chat(**HOW, messages=[{"role": "user", "content": "hi", "images": [b"\x89PNG"]}])
    with pytest.raises(ollama.ResponseError, match="suffix"):
        client.generate(**HOW, prompt="def f(", suffix="return")
    with pytest.raises(ollama.ResponseError):
        client.create(model="mine", from_="qwen3:0.6b")
