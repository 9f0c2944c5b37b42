"""The Responses API with the openai package."""

import json
from typing import Literal

import openai
import pydantic
import pytest

LIGHT = {
    "type": "function",
    "name": "set_light",
    "description": "Switch a light on or off.",
    "parameters": {
        "type": "object",
        "properties": {"room": {"type": "string"}, "state": {"type": "string", "enum": ["on", "off"]}},
        "required": ["room", "state"],
        "additionalProperties": False,
    },
    "strict": True,
}
CALL = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.'


class Command(pydantic.BaseModel):
    room: str
    state: Literal["on", "off"]


@pytest.fixture
def client(scripted):
    with openai.OpenAI(base_url=scripted.v1, api_key=scripted.key) as client:
        yield client


def test_a_response_has_its_text_status_id_and_usage(client):
    answer = client.responses.create(model="any", input="@say It is on.", instructions="Be brief.")
    assert (answer.object, answer.status, answer.output_text) == ("response", "completed", "It is on.")
    assert answer.id.startswith("resp_")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.output_tokens == len("It is on.") + 1


async def test_the_async_client_gets_a_response(scripted):
    async with openai.AsyncOpenAI(base_url=scripted.v1, api_key=scripted.key) as client:
        assert (await client.responses.create(model="any", input="@say It is on.")).output_text == "It is on."


def test_a_stream_has_the_events_in_their_order(client):
    asked = {"model": "any", "input": "@think Hm.\n@say It is 好 🙂", "reasoning": {"effort": "low"}}
    events = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    text = [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    places = [len(kinds) - 1 - kinds[::-1].index(kind) for kind in text]  # of the last item, the message
    assert places == sorted(places)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "It is 好 🙂"
    assert events[-1].response.output_text == "It is 好 🙂"
    assert [item.type for item in events[-1].response.output] == ["reasoning", "message"]


def test_a_tool_is_called_and_its_result_is_answered(client):
    asked = [{"role": "user", "content": CALL}]
    first = client.responses.create(model="any", input=asked, tools=[LIGHT])
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("set_light", {"room": "kitchen", "state": "on"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    second = client.responses.create(model="any", input=[*asked, *first.output, result], tools=[LIGHT])
    assert second.output_text == "It is on."


def test_a_conversation_goes_on_from_the_response_before(client):
    first = client.responses.create(model="any", input=CALL, tools=[LIGHT], tool_choice="required")
    (call,) = [item for item in first.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    second = client.responses.create(model="any", input=[result], tools=[LIGHT], previous_response_id=first.id)
    assert second.output_text == "It is on."
    assert second.previous_response_id == first.id
    assert client.responses.retrieve(second.id).output_text == "It is on."
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)


def test_a_call_is_streamed_in_pieces(client):
    with client.responses.stream(model="any", input=CALL, tools=[LIGHT]) as stream:
        events = list(stream)
        whole = stream.get_final_response()
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert json.loads("".join(pieces)) == {"room": "kitchen", "state": "on"}
    (call,) = [item for item in whole.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"room": "kitchen", "state": "on"}


def test_a_response_is_parsed_into_a_pydantic_model(client):
    answer = client.responses.parse(model="any", input='@say {"room":"bath","state":"off"}', text_format=Command)
    assert answer.output_parsed == Command(room="bath", state="off")


def test_effort_none_does_not_think(client):
    asked = {"model": "any", "input": "@think Hm.\n@say Yes.", "reasoning": {"effort": "none"}}
    answer = client.responses.create(**asked)
    assert [item.type for item in answer.output] == ["message"]


def test_a_limit_makes_the_response_incomplete(client):
    answer = client.responses.create(model="any", input="@words 100", max_output_tokens=16)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_a_stream_that_is_left_frees_its_place(client, broken_off):
    with client.responses.create(model="any", input="@words 5000", stream=True) as stream:
        for _ in range(6):
            next(stream)
    broken_off()


def test_errors_are_the_packages_own(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(model="any", input="hi", temperature=-1)
    assert error.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_unknown")


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"background": True}, "background"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
    ],
    ids=["a tool of OpenAI's", "background", "an image"],
)
def test_what_this_server_cannot_do_is_refused_by_name(client, asked, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(**{"model": "any", "input": "hi", **asked})
    assert error.value.param.startswith(param)
