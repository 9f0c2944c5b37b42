"""ChatOllama, OllamaLLM and OllamaEmbeddings."""

from typing import Literal

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from ollama import Client
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


def with_key(daemon) -> dict:
    headers = {"Authorization": f"Bearer {daemon.key}"}
    return {"model": "qwen3:0.6b", "base_url": daemon.address, "client_kwargs": {"headers": headers}}


@pytest.fixture
def chat(scripted):
    return lambda **more: ChatOllama(**with_key(scripted), **more)


def test_an_answer_has_its_usage_and_reason(chat):
    answer = chat().invoke("@say It is on.")
    assert (answer.content, answer.response_metadata["done_reason"]) == ("It is on.", "stop")
    assert answer.usage_metadata["output_tokens"] == len("It is on.") + 1


async def test_a_stream(chat):
    assert "".join([chunk.content async for chunk in chat().astream("@say It is 好 🙂")]) == "It is 好 🙂"


@pytest.mark.parametrize(("reasoning", "thoughts"), [(True, "Hm."), (False, "")])
def test_reasoning_is_kept_apart(chat, reasoning, thoughts):
    answer = chat(reasoning=reasoning).invoke("@think Hm.\n@say Yes.")
    assert (answer.content, answer.additional_kwargs.get("reasoning_content", "").strip()) == ("Yes.", thoughts)


def test_bound_tools_are_called_and_the_result_is_answered(chat):
    model = chat().bind_tools([set_light])
    answer = model.invoke(CALL)
    (call,) = answer.tool_calls
    assert call["args"] == {"room": "kitchen", "state": "on"}
    assert model.invoke([HumanMessage(CALL), answer, set_light.invoke(call)]).content == "It is on."


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_by_each_method(chat, method):
    said = '@say {"room":"kitchen","state":"on"}'
    script = '@call Command {"room": "kitchen", "state": "on"}' if method == "function_calling" else said
    model = chat().with_structured_output(Command, method=method)
    assert model.invoke(script) == Command(room="kitchen", state="on")


def test_the_model_is_found_if_langchain_looks_for_it(scripted):
    how = with_key(scripted)
    (model,) = Client(host=scripted.address, headers=how["client_kwargs"]["headers"]).list().models
    chat = ChatOllama(**{**how, "model": model.model}, validate_model_on_init=True)
    assert chat.invoke("@say Yes.").content == "Yes."
    with pytest.raises(ValueError, match="not found"):
        ChatOllama(**{**how, "model": "another"}, validate_model_on_init=True)


def test_a_text_completion(scripted):
    assert OllamaLLM(**with_key(scripted)).invoke("@say It is on.") == "It is on."


def test_embeddings(demo):
    model = OllamaEmbeddings(model="any", base_url=demo.address)
    one, two = model.embed_documents(["the kitchen light", "the bath fan"])
    assert len(one) == len(two) == len(model.embed_query("the kitchen light"))
