"""LlamaIndex with OpenAILike."""

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

CALL = '@call set_light {"room": "kitchen", "state": "on"}'


class Command(BaseModel):
    """What a light shall do."""

    room: str
    state: str


def set_light(room: str, state: str) -> str:
    """Switch a light on or off."""
    return f"{room} {state}"


@pytest.fixture
def llm(scripted):
    def make(**more) -> OpenAILike:
        return OpenAILike(model="any", api_base=scripted.v1, api_key=scripted.key, **{"is_chat_model": True, **more})

    return make


def test_a_chat(llm):
    answer = llm().chat([ChatMessage(role="user", content="@say It is on.")])
    assert (answer.message.role.value, answer.message.content) == ("assistant", "It is on.")


def test_a_chat_streams(llm):
    pieces = list(llm().stream_chat([ChatMessage(role="user", content="@say It is 好 🙂")]))
    assert pieces[-1].message.content == "".join(piece.delta or "" for piece in pieces) == "It is 好 🙂"


async def test_an_async_completion_by_chat(llm):
    assert (await llm().acomplete("@say It is on.")).text == "It is on."


def test_by_default_a_completion_is_a_text_completion(llm):
    assert llm(is_chat_model=False, max_tokens=16).complete("Once").text == "Hello!"


@pytest.mark.parametrize("required", [False, True])
def test_a_tool_is_called(llm, required):
    tool = FunctionTool.from_defaults(set_light)
    model = llm(is_function_calling_model=True)
    answer = model.chat_with_tools([tool], user_msg=CALL, tool_required=required)
    (call,) = model.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("set_light", {"room": "kitchen", "state": "on"})


def test_structured_predict_by_a_tool(llm):
    script = PromptTemplate("@call Command {arguments}")
    model = llm(is_function_calling_model=True)
    answer = model.structured_predict(Command, script, arguments='{"room": "kitchen", "state": "on"}')
    assert answer == Command(room="kitchen", state="on")


def test_structured_predict_by_a_schema(llm):
    model = llm(should_use_structured_outputs=True)
    script = PromptTemplate("@say {arguments}")
    answer = model.structured_predict(Command, script, arguments='{"room":"kitchen","state":"on"}')
    assert answer == Command(room="kitchen", state="on")


def test_structured_predict_needs_one_of_these_two(llm):
    """Without them LlamaIndex requires a tool call and sends no tools, which OpenAI refuses, too."""
    with pytest.raises(openai.BadRequestError) as error:
        llm().structured_predict(Command, PromptTemplate("@say {arguments}"), arguments="{}")
    assert error.value.param == "tool_choice"
