"""Pydantic AI's agents, by chat completions and by Responses."""

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Command(BaseModel):
    """What a light shall do."""

    room: str
    state: str


EXPECTED = Command(room="kitchen", state="on")
CALL = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.'


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel], ids=["chat", "responses"])
def model(request, scripted):
    return request.param("qwen3-0.6b", provider=OpenAIProvider(base_url=scripted.v1, api_key=scripted.key))


async def test_an_answer_has_its_usage(model):
    answer = await Agent(model, instructions="Be brief.").run("@say It is on.")
    assert answer.output == "It is on."


async def test_a_stream(model):
    async with Agent(model).run_stream("@say It is 好 🙂") as stream:
        assert "".join([piece async for piece in stream.stream_text(delta=True)]) == "It is 好 🙂"


async def test_a_tool_is_called_and_its_result_is_answered(model):
    agent, seen = Agent(model), []

    @agent.tool_plain
    def set_light(room: str, state: str) -> str:
        """Switch a light on or off."""
        seen.append((room, state))
        return "done"

    assert (await agent.run(CALL)).output == "It is on."
    assert seen == [("kitchen", "on")]


async def test_an_output_by_a_tool(model):
    agent = Agent(model, output_type=ToolOutput(Command, name="command"))
    assert (await agent.run('@call command {"room": "kitchen", "state": "on"}')).output == EXPECTED


@pytest.mark.parametrize("kind", [NativeOutput, PromptedOutput])
async def test_an_output_by_a_schema(model, kind):
    agent = Agent(model, output_type=kind(Command))
    assert (await agent.run('@say {"room":"kitchen","state":"on"}')).output == EXPECTED


async def test_a_history_is_read(model):
    agent = Agent(model)
    first = await agent.run("@say one\n@then\n@say two")
    second = await agent.run("and now?", message_history=first.all_messages())
    assert second.output == "two"
