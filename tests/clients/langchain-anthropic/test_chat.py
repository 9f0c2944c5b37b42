"""ChatAnthropic."""

from typing import Literal

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from pydantic import BaseModel

CALL = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.'


class Command(BaseModel):
    """What a light shall do."""

    room: str
    state: Literal["on", "off"]


@tool
def set_light(room: str, state: Literal["on", "off"]) -> str:
    """Switch a light."""
    return f"{room} {state}"


@pytest.fixture
def chat(scripted):
    how = {"model": "qwen3-0.6b", "max_tokens": 2000, "base_url": scripted.address, "api_key": scripted.key}
    return lambda **more: ChatAnthropic(**how, **more)


def test_an_answer_has_its_usage_and_reason(chat):
    answer = chat().invoke([SystemMessage("Be brief."), HumanMessage("@say It is on.")])
    assert (answer.text, answer.response_metadata["stop_reason"]) == ("It is on.", "end_turn")
    assert answer.usage_metadata["output_tokens"] == len("It is on.") + 1


async def test_a_stream(chat):
    assert "".join([chunk.text async for chunk in chat().astream("@say It is 好 🙂")]) == "It is 好 🙂"


def test_thinking_is_a_block_of_its_own(chat):
    answer = chat(thinking={"type": "enabled", "budget_tokens": 1024}).invoke("@think Hm.\n@say Yes.")
    assert [block["type"] for block in answer.content] == ["thinking", "text"]
    assert answer.text == "Yes."


@pytest.mark.parametrize("choice", [None, "auto", "any", "set_light"])
def test_bound_tools_are_called_and_the_result_is_answered(chat, choice):
    model = chat().bind_tools([set_light], **({} if choice is None else {"tool_choice": choice}))
    answer = model.invoke(CALL)
    (call,) = answer.tool_calls
    assert call["args"] == {"room": "kitchen", "state": "on"}
    history = [HumanMessage(CALL), answer, set_light.invoke(call)]
    assert chat().bind_tools([set_light]).invoke(history).text == "It is on."


def test_structured_output_by_a_tool(chat):
    model = chat().with_structured_output(Command, method="function_calling")
    script = '@call Command {"room": "kitchen", "state": "on"}'
    assert model.invoke(script) == Command(room="kitchen", state="on")
