"""A body in OpenAI's form becomes a request in the model's terms, also from clients of old and of other servers."""

import json

import pytest
from msgspec.structs import replace

from qwen_edge.chat.abilities import TemplateAbilities
from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Sampling
from qwen_edge.server.answering import Asked
from qwen_edge.server.openai.chat_body import read_body
from qwen_edge.server.openai.parse import to_request
from qwen_edge.service.pipeline import ModelInfo

CAN = TemplateAbilities(system=True, tools=True, calls=True, thinking="optional")
USER = {"role": "user", "content": "Count to five."}
BEGUN = {"role": "assistant", "content": "One, two,"}
CALL = {"id": "1", "type": "function", "function": {"name": "light", "arguments": "{}"}}
LIGHT = {"name": "light", "parameters": {"type": "object", "properties": {"room": {"type": "string"}}}}
FAN = {"name": "fan"}


def asked(*messages, can=CAN, defaults=None, **body):
    data = json.dumps({"messages": messages or [USER], **body}).encode()
    model = ModelInfo(Sampling(), 4096, can)
    return to_request(read_body(data, ignore_unknown=False), Asked(model, defaults or ChatConfig()))


def refused(*messages, **body):
    with pytest.raises(RequestError) as error:
        asked(*messages, **body)
    return error.value


# the beginning of an answer


@pytest.mark.parametrize("more", [{}, {"continue_final_message": True}, {"add_generation_prompt": False}])
def test_a_last_message_of_the_assistant_begins_the_answer(more):
    request = asked(USER, BEGUN, **more)
    assert request.begun == "One, two,"
    assert [message["role"] for message in request.messages] == ["user"]
    assert request.thinking is False


def test_a_last_message_of_the_assistant_is_history_if_the_client_says_so():
    request = asked(USER, BEGUN, continue_final_message=False)
    assert (request.begun, len(request.messages)) == ("", 2)


def test_a_beginning_may_be_in_parts_and_may_be_marked_as_prefix():
    parts = [{"type": "text", "text": "One, "}, {"type": "text", "text": "two,"}]
    assert asked(USER, {"role": "assistant", "content": parts, "prefix": True}).begun == "One, two,"


@pytest.mark.parametrize(
    "last",
    [
        [USER],
        [{"role": "assistant", "content": ""}],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": "Text", "tool_calls": [CALL]}],
        [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "done"}],
    ],
)
def test_there_must_be_a_text_to_continue(last):
    assert refused(USER, *last, continue_final_message=True).parameter == "continue_final_message"
    assert asked(USER, *last).begun == ""


@pytest.mark.parametrize(
    ("messages", "parameter"),
    [
        ([{**USER, "prefix": True}], "messages[0].prefix"),
        ([USER, {**BEGUN, "prefix": True}, USER], "messages[1].prefix"),
    ],
)
def test_only_the_last_message_of_the_assistant_is_a_prefix(messages, parameter):
    assert refused(*messages).parameter == parameter


@pytest.mark.parametrize("wish", [{"enable_thinking": True}, {"think": True}, {"thinking": {"type": "enabled"}}])
def test_an_answer_that_has_begun_is_not_thought_about(wish):
    assert refused(USER, BEGUN, **wish).parameter == "enable_thinking"
    assert asked(USER, BEGUN, reasoning_effort="high").thinking is False


@pytest.mark.parametrize(("thinks", "on"), [("optional", False), ("always", None), ("never", None)])
def test_a_beginning_asks_a_template_for_no_thinking_only_if_it_has_a_choice(thinks, on):
    assert asked(USER, BEGUN, can=replace(CAN, thinking=thinks)).thinking is on


# functions, from before there were tools


def names(request):
    return [tool["function"]["name"] for tool in request.tools]


def callable_names(request):
    return [name for name, _ in json.loads(request.call_shape.text)]


def test_functions_are_tools_of_which_one_is_called():
    request = asked(functions=[LIGHT, FAN])
    assert names(request) == callable_names(request) == ["light", "fan"]
    assert (request.requires_call, request.parallel_calls) == (False, False)
    assert request.tools == asked(tools=[{"type": "function", "function": one} for one in (LIGHT, FAN)]).tools


def test_function_call_chooses_among_functions():
    assert asked(functions=[LIGHT, FAN], function_call="none").tools == ()
    assert not asked(functions=[LIGHT, FAN], function_call="auto").requires_call
    request = asked(functions=[LIGHT, FAN], function_call={"name": "fan"})
    assert (request.requires_call, callable_names(request), names(request)) == (True, ["fan"], ["light", "fan"])


def test_a_choice_counts_by_either_name():
    tools = [{"function": LIGHT}]
    assert asked(tools=tools, function_call={"name": "light"}).requires_call
    assert asked(functions=[LIGHT], tool_choice="required").requires_call


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"functions": [LIGHT], "tools": [{"function": LIGHT}]}, "functions"),
        ({"functions": [{"description": "no name"}]}, "functions[0]"),
        ({"functions": [LIGHT, {"name": 1}]}, "functions[1].name"),
        ({"functions": [LIGHT], "function_call": {"name": "door"}}, "function_call"),
        ({"functions": [LIGHT], "function_call": "sometimes"}, "function_call"),
        ({"function_call": {"name": "light"}}, "function_call"),
        ({"tool_choice": {"type": "function", "function": {"name": "light"}}}, "tool_choice"),
        ({"functions": [{"name": "f", "parameters": {"type": "wrong"}}], "function_call": {"name": "f"}},
         "functions[0].parameters"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_as_the_client_has_sent_it(body, parameter):
    assert refused(**body).parameter == parameter


@pytest.mark.parametrize("empty", [{"functions": []}, {"functions": None}, {"functions": [None]}])
def test_no_functions_are_no_tools(empty):
    assert asked(**empty).tools == ()
    assert asked(**empty, function_call="auto").tools == ()


def test_an_old_history_of_calls_is_read_as_a_new_one():
    old = {"role": "assistant", "content": None, "function_call": {"name": "light", "arguments": '{"room": "a"}'}}
    request = asked(USER, old, {"role": "function", "name": "light", "content": "done"})
    assert [message["role"] for message in request.messages] == ["user", "assistant", "tool"]
    assert request.messages[1]["tool_calls"][0]["function"] == {"name": "light", "arguments": '{"room": "a"}'}
    assert request.messages[2]["content"] == "done"


# the length of the answer


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_minus_one_is_no_limit_and_zero_is_refused_by_each_name(name):
    settings = ChatConfig(max_tokens=50)
    assert asked(defaults=settings).max_tokens == 50
    assert asked(defaults=settings, **{name: -1}).max_tokens is None
    assert asked(defaults=settings, **{name: 7}).max_tokens == 7
    assert refused(**{name: 0}).parameter == name
    assert refused(**{name: -2}).parameter == name


# thinking by every name


@pytest.mark.parametrize(
    ("body", "on", "budget"),
    [
        ({"enable_thinking": False}, False, None),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True, None),
        ({"think": True}, True, None),
        ({"think": "low"}, True, 512),
        ({"think": "none"}, False, None),
        ({"thinking": {"type": "disabled"}}, False, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, True, 9),
        ({"thinking": {"type": "adaptive"}}, None, None),
        ({"reasoning_effort": "none"}, False, None),
        ({"reasoning_effort": "minimal"}, True, 128),
        ({"reasoning": {"effort": "medium"}}, True, 2048),
        ({"reasoning": {"enabled": False}}, False, None),
        ({"reasoning": {"max_tokens": 5}}, None, 5),
        ({"thinking_budget": 0}, False, 0),
        ({"thinking_budget_tokens": 3}, None, 3),
        ({"enable_thinking": True, "think": False}, True, None),
    ],
)
def test_thinking_is_switched_by_every_name(body, on, budget):
    request = asked(**body)
    assert (request.thinking, request.thinking_budget) == (on, budget)


@pytest.mark.parametrize(
    ("body", "returned"),
    [
        ({}, True),
        ({"reasoning": {"exclude": True}}, False),
        ({"include_reasoning": False}, False),
        ({"return_reasoning": True, "include_reasoning": False}, True),
        ({"return_reasoning": False}, False),
    ],
)
def test_the_reasoning_is_returned_unless_any_name_says_no(body, returned):
    assert asked(**body).return_reasoning is returned


@pytest.mark.parametrize(
    "more",
    [
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Five."}]},
    ],
)
def test_reasoning_in_the_history_is_kept_by_every_name(more):
    message = asked(USER, {"role": "assistant", "content": "Five.", **more}, USER).messages[1]
    assert (message["content"], message["reasoning_content"]) == ("Five.", "Hm.")


def test_a_message_of_the_assistant_alone_is_the_conversation_and_begins_nothing():
    request = asked(BEGUN)
    assert (len(request.messages), request.begun) == (1, "")


@pytest.mark.parametrize("body", [{"continue_final_message": True}, {"messages": [{**BEGUN, "prefix": True}]}])
def test_to_continue_a_message_of_the_assistant_alone_is_refused(body):
    with pytest.raises(RequestError):
        asked(*body.pop("messages", [BEGUN]), **body)
