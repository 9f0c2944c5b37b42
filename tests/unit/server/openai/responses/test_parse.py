"""What clients send becomes a chat request; what cannot be honoured is refused by name."""

import json
from dataclasses import replace

import pytest

from qwen_edge.chat.abilities import TemplateAbilities
from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Sampling
from qwen_edge.server.answering import Asked
from qwen_edge.server.openai.responses.body import read_body
from qwen_edge.server.openai.responses.items import named, new_id, response_of
from qwen_edge.server.openai.responses.parse import to_request
from qwen_edge.server.openai.responses.reasoning_text import MOST_UNPACKED, packed
from qwen_edge.server.openai.responses.response import begun
from qwen_edge.server.openai.responses.truncate import truncated
from qwen_edge.service.pipeline import ModelInfo

MODEL = ModelInfo(Sampling(0.6, 20, 0.95, 0.0), 4096, TemplateAbilities(thinking="optional"))
ASKED = Asked(MODEL, ChatConfig())
TOOL = {
    "type": "function",
    "name": "f",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}
USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
PLAIN_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def read(ignore_unknown: bool = False, **body):
    return read_body(json.dumps({"input": "hi", **body}).encode(), ignore_unknown=ignore_unknown)


def parsed(**body):
    body = read(**body)
    return to_request(body, body.input if isinstance(body.input, list) else read(input=[USER]).input, ASKED)


def messages(items, **body):
    return list(parsed(input=items, **body).messages)


def refused(**body) -> RequestError:
    with pytest.raises(RequestError) as error:
        parsed(**body)
    return error.value


@pytest.mark.parametrize(
    "item",
    [
        USER,
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "input_text", "text": "i"}]},
        {"type": None, "role": "user", "content": "hi", "id": None, "status": None, "unknown": 3},
    ],
)
def test_a_message_in_every_form_is_the_same_message(item):
    assert messages([item]) == [{"role": "user", "content": "hi"}]


def test_instructions_come_first_and_developers_are_systems():
    assert messages([{"role": "developer", "content": "b"}, USER], instructions="a") == [
        {"role": "system", "content": "a"},
        {"role": "system", "content": "b"},
        USER,
    ]


def test_opaque_texts_may_not_expand_to_more_than_a_request_may_hold():
    half = {"type": "reasoning", "summary": [], "encrypted_content": packed("x" * (MOST_UNPACKED // 2))}
    said = {"role": "assistant", "content": "a"}
    assert len(messages([half, half, USER])[0]["reasoning_content"]) == MOST_UNPACKED
    small = {**half, "encrypted_content": packed("x")}
    for items in ([half, half, small], [half, said, USER, half, said, small], [half] * 200):
        with pytest.raises(RequestError) as refused:
            messages([*items, USER])
        at = items.index(small) if small in items else 2
        assert refused.value.parameter == f"input[{at}].encrypted_content"
        assert f"more than {MOST_UNPACKED} bytes" in refused.value.message
    assert messages([{**half, "encrypted_content": packed("")}, USER])[0]["reasoning_content"] == ""


@pytest.mark.parametrize(
    "reasoning",
    [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "reasoning", "summary": [], "encrypted_content": packed("Hm."), "content": None},
        {"type": "reasoning", "summary": None, "encrypted_content": packed("Hm.")},
    ],
)
def test_the_items_of_a_turn_are_one_message_of_the_assistant(reasoning):
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]}
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    second = {**CALL, "call_id": "c2"}
    other = {**output, "call_id": "c2", "output": [{"type": "input_text", "text": "3"}]}
    assert messages([USER, reasoning, said, CALL, second, output, other, {**said, "id": "msg_1"}]) == [
        USER,
        {
            "role": "assistant",
            "content": "Wait.",
            "reasoning_content": "Hm.",
            "tool_calls": [PLAIN_CALL, {**PLAIN_CALL, "id": "c2"}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "tool", "content": "3", "tool_call_id": "c2"},
        {"role": "assistant", "content": "Wait."},
    ]


def test_two_messages_of_the_assistant_stay_two_and_words_behind_a_call_belong_to_its_turn():
    said = {"role": "assistant", "content": "a"}
    assert messages([USER, said, {**said, "content": "b"}])[1:] == [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    assert messages([USER, said, CALL, {**said, "content": "b"}])[1:] == [
        {"role": "assistant", "content": "ab", "tool_calls": [PLAIN_CALL]}
    ]


def test_what_home_assistant_sends_behind_calls_belongs_to_their_turn():
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}],
               "encrypted_content": None}  # fmt: skip
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    assert messages([USER, CALL, thought, output]) == [
        USER,
        {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [PLAIN_CALL]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]


def test_home_assistants_schemas_and_cache_retention_are_taken():
    schema = {"type": "object", "strict": True, "additionalProperties": False, "required": ["a"],
              "properties": {"a": {"type": ["string", "null"], "description": "d"}}}  # fmt: skip
    chat = parsed(prompt_cache_retention="24h", text={"format": {"type": "json_schema", "name": "n", "schema": schema}})
    assert chat.shape is not None
    assert chat.pin_seconds == 0, "every question has it, so it cannot be a pin"


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
        ({"input": [USER, {"role": "user", "content": [{"type": "input_file"}]}]}, "input[1].content[0]"),
        (
            {"input": [CALL, {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_image"}]}]},
            "input[1].output[0]",
        ),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": "c1", "output": "x"}]}, "input[0].call_id"),
        ({"input": [USER, {"type": "function_call", "name": "f"}]}, "input[1]"),
        ({"input": [3]}, "input[0]"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}]}, "input[0].encrypted_content"),
        ({"tools": [{"type": "web_search_preview"}]}, "tools[0].type"),
        ({"tools": [TOOL, {"type": "custom", "name": "x"}]}, "tools[1].type"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"include": ["nonsense"]}, "include[0]"),
        ({"reasoning": {"effort": "much"}}, "reasoning.effort"),
        ({"truncation": "sometimes"}, "truncation"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"reasoning": {"nonsense": 1}}, "reasoning.nonsense"),
        ({"nonsense": 1}, "nonsense"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"response_format": {"type": "json_object"}, "text": {"format": {"type": "json_object"}}}, "response_format"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(body, parameter):
    error = refused(**body)
    assert error.parameter == parameter
    assert error.kind == "invalid_request"


def test_function_tools_are_shown_in_the_form_of_chat_completions():
    chat = parsed(tools=[{**TOOL, "strict": True, "description": "d"}, {"function": {"name": "g"}}])
    function = {"name": "f", "description": "d", "parameters": TOOL["parameters"], "strict": True}
    assert list(chat.tools) == [
        {"type": "function", "function": function},
        {"type": "function", "function": {"name": "g"}},
    ]
    assert chat.call_shape is not None


@pytest.mark.parametrize(
    ("choice", "required", "shown"),
    [
        ("auto", False, 1),
        ("none", False, 0),
        ("required", True, 1),
        ({"type": "function", "name": "f"}, True, 1),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}, False, 1),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}, True, 1),
    ],
)
def test_every_form_of_tool_choice(choice, required, shown):
    chat = parsed(tools=[TOOL], tool_choice=choice)
    assert (chat.requires_call, len(chat.tools)) == (required, shown)
    assert begun(read(tools=[TOOL], tool_choice=choice), chat, "m")["tool_choice"] == choice


def test_parameters_arrive():
    chat = parsed(
        temperature=0.1,
        top_p=0.5,
        top_k=3,
        min_p=0.2,
        seed=7,
        stop=["x"],
        max_output_tokens=9,
        parallel_tool_calls=False,
        priority="background",
        wait_seconds=3,
        max_seconds=4,
        prompt_cache_key="k",
        top_logprobs=2,
        chat_template_kwargs={"a": 1},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        reasoning={"effort": "low"},
    )
    sampling = chat.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.1, 0.5, 3, 0.2)
    assert (sampling.seed, sampling.logprobs, chat.stop, chat.max_tokens) == (7, 2, ("x",), 9)
    assert (chat.parallel_calls, chat.priority, chat.wait_seconds, chat.max_seconds) == (False, "background", 3, 4)
    assert (chat.conversation, chat.goes_on, chat.template_arguments) == ("k", True, {"a": 1})
    assert (chat.shape.kind, chat.shape_parameter) == ("json_schema", "text.format.schema")
    assert (chat.thinking, chat.thinking_budget) == (True, 512)


@pytest.mark.parametrize(
    ("body", "on"),
    [
        ({"reasoning": {"effort": "none"}}, False),
        ({"enable_thinking": False}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"reasoning": {"enabled": False}}, False),
        ({"thinking": {"type": "disabled"}}, False),
        ({"think": False}, False),
        ({"reasoning": {"effort": "high", "summary": "auto"}}, True),
        ({"reasoning": {"summary": "auto"}}, None),
    ],
)
def test_thinking_is_asked_for_by_every_name(body, on):
    assert parsed(**body).thinking is on


@pytest.mark.parametrize(
    ("body", "logprobs"),
    [({}, None), ({"include": ["message.output_text.logprobs"]}, 0), ({"top_logprobs": 3}, 3)],
)  # fmt: skip
def test_logprobs_come_if_they_are_asked_for(body, logprobs):
    assert parsed(**body).sampling.logprobs == logprobs


def test_what_agents_and_home_assistant_send_by_default_is_accepted():
    parsed(
        include=[], tools=[], store=False, stream=True, user="u", truncation=None, metadata=None, service_tier="auto",
        text={"verbosity": "low", "format": {"type": "text"}}, reasoning={"effort": "low", "summary": "auto"},
        parallel_tool_calls=True, safety_identifier="s", prompt_cache_retention="24h", max_tool_calls=3,
        stream_options={"include_obfuscation": False}, background=False, moderation=None, prompt=None,
    )  # fmt: skip


def test_the_response_repeats_the_request():
    body = read(instructions="a", metadata={"k": "v"}, tools=[TOOL], user="u", store=False, max_output_tokens=9,
                text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
                reasoning={"effort": "low", "summary": "auto"}, truncation="auto", temperature=0.5)  # fmt: skip
    response = begun(body, to_request(body, read(input=[USER]).input, ASKED), "m")
    assert response["tools"] == [{**TOOL, "description": None, "strict": True}]
    assert response["text"]["format"]["schema"] == {"type": "object"}
    assert response["reasoning"] == {"effort": "low", "summary": "auto"}
    assert (response["instructions"], response["metadata"], response["user"]) == ("a", {"k": "v"}, "u")
    assert (response["store"], response["truncation"], response["temperature"]) == (False, "auto", 0.5)
    assert (response["max_output_tokens"], response["error"], response["status"]) == (9, None, "in_progress")


def test_an_items_id_tells_its_response_and_listed_items_have_one():
    response = "resp_" + "ab" * 16
    assert response_of(new_id("message", response, 3)) == response
    items = named(read(input=[USER, {**CALL, "id": "fc_own"}]).input, response)
    assert response_of(items[0]["id"]) == response
    assert items[0]["content"] == [{"type": "input_text", "text": "hi"}]
    assert items[1]["id"] == "fc_own"
    assert response_of("x") == "resp_"


def conversation(turns: int):
    items = [{"role": "system", "content": "s"}]
    for number in range(turns):
        items += [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}]
    return parsed(input=[*items, {"role": "user", "content": "last"}])


@pytest.mark.parametrize(("context", "turns"), [(100, 3), (12, 3), (11, 3), (9, 2), (6, 1), (4, 0), (1, 0)])
async def test_the_oldest_turns_go_until_the_rest_fits(context, turns):
    """Each message is a token, and a quarter of the context is for the answer; eight tokens can be counted."""

    async def count(request):
        if len(request.messages) > 8:
            raise RequestError("too long", code="context_length_exceeded")
        return len(request.messages)

    shorter = await truncated(conversation(5), context, count)
    kept = [text for number in range(5 - turns, 5) for text in (f"q{number}", f"a{number}")]
    assert [message["content"] for message in shorter.messages] == ["s", *kept, "last"]


async def test_a_short_answer_needs_little_room_and_a_conversation_that_fits_stays():
    async def count(request):
        return len(request.messages)

    chat = replace(conversation(5), max_tokens=1)
    assert await truncated(chat, 13, count) == chat
    assert len((await truncated(chat, 12, count)).messages) == 10
