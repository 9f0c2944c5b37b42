"""smolagents with OpenAIServerModel."""

import pytest
from smolagents import CodeAgent, OpenAIServerModel, ToolCallingAgent, tool

SCRIPT = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@call final_answer {"answer": "It is on."}'


@tool
def set_light(room: str, state: str) -> str:
    """Switch a light on or off.

    Args:
        room: the room the light is in
        state: on or off
    """
    return f"{room} {state}"


@pytest.fixture
def model(scripted):
    return OpenAIServerModel(model_id="qwen3-0.6b", api_base=scripted.v1, api_key=scripted.key)


@pytest.mark.parametrize("streams", [False, True])
def test_an_agent_calls_a_tool_and_gives_its_final_answer(model, streams):
    agent = ToolCallingAgent(tools=[set_light], model=model, max_steps=3, stream_outputs=streams, verbosity_level=0)
    assert agent.run(SCRIPT) == "It is on."
    calls = [call.name for step in agent.memory.steps for call in getattr(step, "tool_calls", None) or []]
    assert calls == ["set_light", "final_answer"]


def test_an_agent_that_writes_code(model):
    script = "@say Thought: switch it.\\n<code>\\nfinal_answer(set_light('kitchen', 'on'))\\n</code>"
    assert CodeAgent(tools=[set_light], model=model, max_steps=2, verbosity_level=0).run(script) == "kitchen on"


def test_a_stream(model):
    pieces = model.generate_stream([{"role": "user", "content": [{"type": "text", "text": "@say It is 好 🙂"}]}])
    assert "".join(piece.content or "" for piece in pieces) == "It is 好 🙂"
