"""The OpenAI Agents SDK, by Responses, which is its default, and by chat completions."""

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

CALL = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.'


class Command(BaseModel):
    room: str
    state: str


@function_tool
def set_light(room: str, state: str) -> str:
    """Switch a light on or off."""
    return f"{room} {state}"


@pytest.fixture
async def openai(scripted):
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=scripted.v1, api_key=scripted.key) as client:
        yield client


@pytest.fixture(params=[OpenAIResponsesModel, OpenAIChatCompletionsModel], ids=["responses", "chat"])
def model(request, openai):
    return request.param(model="qwen3-0.6b", openai_client=openai)


async def test_the_default_is_what_a_user_types(openai):
    set_default_openai_client(openai, use_for_tracing=False)
    answer = await Runner.run(Agent("home", instructions="Be brief.", model="qwen3-0.6b"), "@say It is on.")
    assert answer.final_output == "It is on."


@pytest.mark.parametrize("choice", [None, "auto", "required", "set_light"])
async def test_a_tool_is_called_and_its_result_is_answered(model, choice):
    agent = Agent("home", model=model, tools=[set_light], model_settings=ModelSettings(tool_choice=choice))
    answer = await Runner.run(agent, CALL)
    assert answer.final_output == "It is on."
    assert [item.output for item in answer.new_items if item.type == "tool_call_output_item"] == ["kitchen on"]


async def test_a_stream(model):
    answer = Runner.run_streamed(Agent("home", model=model, tools=[set_light]), CALL)
    kinds = [event.type async for event in answer.stream_events()]
    assert answer.final_output == "It is on."
    assert {"raw_response_event", "run_item_stream_event"} <= set(kinds)


async def test_an_output_type_is_kept(model):
    agent = Agent("home", model=model, output_type=Command)
    answer = await Runner.run(agent, '@say {"room":"kitchen","state":"on"}')
    assert answer.final_output == Command(room="kitchen", state="on")


async def test_a_handoff_to_another_agent(model):
    lights = Agent("lights", model=model, instructions="You switch lights.")
    answer = await Runner.run(
        Agent("home", model=model, handoffs=[lights]), "@call transfer_to_lights\n@then\n@say Here."
    )
    assert (answer.final_output, answer.last_agent.name) == ("Here.", "lights")


async def test_a_conversation_goes_on(model):
    agent = Agent("home", model=model)
    first = await Runner.run(agent, "@say one\n@then\n@say two")
    second = await Runner.run(agent, [*first.to_input_list(), {"role": "user", "content": "and now?"}])
    assert second.final_output == "two"
