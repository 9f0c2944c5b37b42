"""LiteLLM by each of its providers that this server speaks."""

import json

import litellm
import pytest
from pydantic import BaseModel

LIGHT = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Switch a light on or off.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "state": {"type": "string"}},
            "required": ["room", "state"],
        },
    },
}
CALL = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.'
PROVIDERS = ["openai", "hosted_vllm", "ollama_chat", "anthropic"]


class Command(BaseModel):
    room: str
    state: str


def user(text: str) -> list:
    return [{"role": "user", "content": text}]


@pytest.fixture
def how(scripted):
    def make(provider: str) -> dict:
        base = scripted.v1 if provider in ("openai", "hosted_vllm", "text-completion-openai") else scripted.address
        model = "claude-sonnet-4-5" if provider == "anthropic" else "qwen3-0.6b"
        return {"model": f"{provider}/{model}", "api_base": base, "api_key": scripted.key}

    return make


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_answer_has_its_text_reason_and_usage(how, provider):
    answer = litellm.completion(**how(provider), messages=user("@say It is on."))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("It is on.", "stop")
    assert answer.usage.completion_tokens == len("It is on.") + 1


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_stream(how, provider):
    stream = await litellm.acompletion(**how(provider), messages=user("@say It is 好 🙂"), stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "It is 好 🙂"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_tool_is_called_and_its_result_is_answered(how, provider):
    first = litellm.completion(**how(provider), messages=user(CALL), tools=[LIGHT])
    message = first.choices[0].message
    (call,) = message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls"
    assert json.loads(call.function.arguments) == {"room": "kitchen", "state": "on"}
    result = {"role": "tool", "tool_call_id": call.id, "name": "set_light", "content": "done"}
    history = [*user(CALL), message.model_dump(), result]
    second = litellm.completion(**how(provider), messages=history, tools=[LIGHT])
    assert second.choices[0].message.content == "It is on."


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "anthropic"])
def test_a_tool_can_be_required(how, provider):
    answer = litellm.completion(**how(provider), messages=user(CALL), tools=[LIGHT], tool_choice="required")
    assert answer.choices[0].message.tool_calls[0].function.name == "set_light"


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "ollama_chat"])
def test_a_response_format_is_kept(how, provider):
    asked = {"messages": user('@say {"room":"kitchen","state":"on"}'), "response_format": Command}
    answer = litellm.completion(**how(provider), **asked)
    assert Command.model_validate_json(answer.choices[0].message.content) == Command(room="kitchen", state="on")


@pytest.mark.parametrize("effort", ["none", "low"])
def test_an_effort_is_understood(how, effort):
    asked = {"messages": user("@think Hm.\n@say Yes."), "reasoning_effort": effort}
    answer = litellm.completion(**how("hosted_vllm"), **asked, allowed_openai_params=["reasoning_effort"])
    message = answer.choices[0].message
    assert (message.content, getattr(message, "reasoning_content", None)) == (
        "Yes.",
        "Hm." if effort == "low" else None,
    )


def test_cache_control_in_parts_does_no_harm(how):
    parts = [{"type": "text", "text": "@say Yes.", "cache_control": {"type": "ephemeral"}}]
    answer = litellm.completion(**how("openai"), messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "Yes."


def test_a_text_completion(how):
    answer = litellm.text_completion(**how("text-completion-openai"), prompt="Once", max_tokens=16)
    assert answer.choices[0].text == "Hello!"


def test_a_response(how):
    answer = litellm.responses(**how("openai"), input="@say It is on.")
    assert answer.output[-1].content[0].text == "It is on."


def test_embeddings(demo):
    answer = litellm.embedding(model="openai/any", api_base=demo.v1, api_key=demo.key, input=["a light", "a fan"])
    assert [one["index"] for one in answer.data] == [0, 1]


def test_errors_are_the_packages_own(how):
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**how("openai"), messages=user("hi"), temperature=-1)
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**{**how("openai"), "api_key": "sk-of-somebody-else"}, messages=user("hi"))
