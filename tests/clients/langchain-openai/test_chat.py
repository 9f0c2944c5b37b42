"""ChatOpenAI: streams, tools, structured output by each of its methods, the Responses API, embeddings."""

from typing import Literal

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

CALL = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.'


class Command(BaseModel):
    """What a light shall do."""

    room: str = Field(description="where it is")
    state: Literal["on", "off"]


@tool
def set_light(room: str, state: Literal["on", "off"]) -> str:
    """Switch a light."""
    return f"{room} {state}"


@pytest.fixture
def chat(scripted):
    def make(**more) -> ChatOpenAI:
        return ChatOpenAI(model="Qwen-0.6B", base_url=scripted.v1, api_key=scripted.key, **more)

    return make


def test_an_answer_has_its_usage_and_reason(chat):
    answer = chat().invoke("@say It is on.")
    assert (answer.content, answer.response_metadata["finish_reason"]) == ("It is on.", "stop")
    assert answer.usage_metadata["output_tokens"] == len("It is on.") + 1


async def test_a_stream_has_text_and_usage(chat):
    chunks = [chunk async for chunk in chat(stream_usage=True).astream("@say It is 好 🙂")]
    assert "".join(chunk.content for chunk in chunks) == "It is 好 🙂"
    assert sum((chunk.usage_metadata or {}).get("output_tokens", 0) for chunk in chunks) > 0


def test_many_at_once(chat):
    assert [answer.content for answer in chat().batch([f"@say {number}" for number in range(6)])] == list("012345")


@pytest.mark.parametrize("choice", [None, "auto", "any", "required", "set_light", True])
def test_bound_tools_are_called_and_the_result_is_answered(chat, choice):
    model = chat().bind_tools([set_light], **({} if choice is None else {"tool_choice": choice}))
    history = [HumanMessage(CALL), answer := model.invoke(CALL)]
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("set_light", {"room": "kitchen", "state": "on"})
    result = set_light.invoke(call)
    assert isinstance(result, ToolMessage)
    assert chat().bind_tools([set_light]).invoke([*history, result]).content == "It is on."


def test_a_streamed_call_is_put_together(chat):
    first, *others = chat().bind_tools([set_light]).stream(CALL)
    whole = sum(others, start=first)
    assert [call["args"] for call in whole.tool_calls] == [{"room": "kitchen", "state": "on"}]


@pytest.mark.parametrize("strict", [None, True, False])
@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_by_each_method(chat, method, strict):
    said = '@say {"room":"kitchen","state":"on"}'
    script = '@call Command {"room": "kitchen", "state": "on"}' if method == "function_calling" else said
    more = {} if strict is None or method == "json_mode" else {"strict": strict}
    model = chat().with_structured_output(Command, method=method, **more)
    assert model.invoke(f"Answer in JSON.\n{script}") == Command(room="kitchen", state="on")


def test_structured_output_keeps_the_raw_answer(chat):
    model = chat().with_structured_output(Command.model_json_schema(), include_raw=True, method="json_schema")
    answer = model.invoke('@say {"room":"kitchen","state":"on"}')
    assert answer["parsed"] == {"room": "kitchen", "state": "on"}
    assert answer["parsing_error"] is None


def test_an_agent_uses_a_tool_and_answers(chat):
    agent = create_agent(chat(), tools=[set_light], system_prompt="You switch lights.")
    messages = agent.invoke({"messages": [{"role": "user", "content": CALL}]})["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert (messages[2].content, messages[3].content) == ("kitchen on", "It is on.")


def test_an_agents_structured_response(chat):
    agent = create_agent(chat(), tools=[], response_format=Command)
    script = '@call Command {"room": "kitchen", "state": "on"}'
    answer = agent.invoke({"messages": [{"role": "user", "content": script}]})
    assert answer["structured_response"] == Command(room="kitchen", state="on")


def test_the_responses_api(chat):
    model = chat(use_responses_api=True)
    assert model.invoke("@say It is on.").text == "It is on."
    assert "".join(chunk.text for chunk in model.stream("@say It is on.")) == "It is on."
    (call,) = model.bind_tools([set_light]).invoke(CALL).tool_calls
    assert call["args"] == {"room": "kitchen", "state": "on"}
    structured = model.with_structured_output(Command)
    assert structured.invoke('@say {"room":"kitchen","state":"on"}') == Command(room="kitchen", state="on")


def test_a_text_completion(scripted):
    model = OpenAI(model="any", base_url=scripted.v1, api_key=scripted.key, max_tokens=16)
    assert model.invoke("Once") == "Hello!"
    assert "".join(model.stream("Once")) == "Hello!"


def test_embeddings(demo):
    model = OpenAIEmbeddings(model="any", base_url=demo.v1, api_key=demo.key, check_embedding_ctx_length=False)
    one, two = model.embed_documents(["the kitchen light", "the bath fan"])
    assert len(one) == len(two) == len(model.embed_query("the kitchen light"))


def test_the_demo_model_calls_the_tool_that_the_command_needs(demo):
    no_thinking = {"enable_thinking": False}
    model = ChatOpenAI(model="any", base_url=demo.v1, api_key=demo.key, temperature=0, extra_body=no_thinking)
    (call,) = model.bind_tools([set_light]).invoke("Turn on the kitchen light").tool_calls
    assert call["args"] == {"room": "kitchen", "state": "on"}


def test_reasoning_does_not_show_in_the_answer(chat):
    answer = chat(extra_body={"enable_thinking": True}).invoke("@think Hm.\n@say Yes.")
    assert answer.content == "Yes."
    assert answer.usage_metadata["output_token_details"]["reasoning"] > 0
    assert "reasoning_content" not in answer.additional_kwargs  # LangChain drops it
