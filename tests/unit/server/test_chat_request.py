"""What the parsers of all dialects share: parts make a request, and shared parameters have one meaning."""

import msgspec
import pytest

from qwen_edge.chat.abilities import TemplateAbilities
from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Caller, Sampling, Shape
from qwen_edge.server.answering import Asked
from qwen_edge.server.chat_request import (
    alternatives,
    basic_chat,
    basic_completion,
    continued,
    conversation_name,
    most_tokens,
    plain_call,
)
from qwen_edge.server.parameters import Group
from qwen_edge.server.shapes import AnswerShape
from qwen_edge.server.thinking import Thinking, thinking_when_begun
from qwen_edge.server.tool_choice import Calls
from qwen_edge.service.pipeline import ModelInfo

USER, BEGUN = {"role": "user", "content": "Count."}, {"role": "assistant", "content": "One,"}
CALL = {"type": "function", "function": {"name": "light", "arguments": "{}"}}
ASKED = Asked(ModelInfo(Sampling(), 4096), ChatConfig(volatile=True, stop_loops=True), "cat", Caller("owner"))
SHAPE = AnswerShape(Shape("regex", "a"), "grammar", "shown", ("format",))


def test_a_chat_is_made_of_all_its_parts():
    calls = Calls(({"function": {"name": "f"}},), Shape("calls", "[]"), True, ("f",), ("f: format",))
    chat = basic_chat(ASKED, Sampling(seed=7), [USER], Thinking(True, 9), SHAPE, calls)
    assert (chat.messages, chat.sampling, chat.client, chat.caller) == ((USER,), Sampling(seed=7), "cat", ASKED.caller)
    assert (chat.thinking, chat.thinking_budget, chat.volatile, chat.stops_loops) == (True, 9, True, True)
    assert (chat.shape, chat.shape_parameter, chat.shown_schema) == (SHAPE.shape, "grammar", "shown")
    assert (chat.tools, chat.call_shape, chat.requires_call, chat.strict_calls) == calls[:4]
    assert chat.unenforced == ("format", "f: format")


def test_the_settings_for_chats_do_not_reach_completions():
    request = basic_completion(ASKED, Sampling(), SHAPE)
    assert (request.volatile, request.stops_loops, request.thinking) == (False, False, None)
    assert (request.client, request.shape_parameter, request.unenforced) == ("cat", "grammar", ("format",))


def test_the_assistants_text_behind_other_messages_begins_the_answer():
    assert continued([USER, BEGUN]) == ([USER], "One,")


@pytest.mark.parametrize("messages", [
    [BEGUN],  # without it there would be nothing to render
    [BEGUN, USER],
    [USER, {**BEGUN, "content": ""}],
    [USER, {**BEGUN, "tool_calls": [CALL]}],
])  # fmt: skip
def test_other_messages_begin_no_answer(messages):
    assert continued(messages) == (messages, "")


@pytest.mark.parametrize("nothing", [None, "", {}])
def test_a_call_of_the_history_has_arguments(nothing):
    assert plain_call("light", nothing, None) == CALL
    assert plain_call("light", {"a": 1}, "1")["function"]["arguments"] == {"a": 1}
    assert plain_call("light", "{}", "1")["id"] == "1"


def test_a_conversations_name_is_the_first_that_says_something_and_not_long():
    assert conversation_name(None, "", "b", "c") == "b"
    assert conversation_name(None, None) == ""
    assert conversation_name("a" * 1000) == "a" * 200


class Body(Group):
    most: int | None = None
    other: int | None = None


@pytest.mark.parametrize(
    ("body", "most"), [({}, 16), ({"most": 3, "other": 4}, 3), ({"other": 4}, 4), ({"most": -1}, None)]
)
def test_the_first_limit_counts_and_minus_one_is_none(body, most):
    assert most_tokens(msgspec.convert(body, Body), ("most", "other"), 16) == most


def test_a_limit_of_zero_is_refused_by_the_name_that_the_client_has_sent():
    with pytest.raises(RequestError, match="other must be 1") as refused:
        most_tokens(Body(other=0), ("most", "other"), 16)
    assert refused.value.parameter == "other"


@pytest.mark.parametrize(
    ("logprobs", "top", "number"), [(None, None, None), (False, 0, None), (True, None, 0), (True, 3, 3)]
)
def test_alternatives_come_with_logprobs_only(logprobs, top, number):
    assert alternatives(logprobs, top) == number


def test_alternatives_without_logprobs_are_refused():
    with pytest.raises(RequestError, match="top_logprobs needs"):
        alternatives(None, 2)


@pytest.mark.parametrize(("kind", "on"), [("optional", False), ("always", None), ("never", None)])
def test_before_an_answer_that_has_begun_there_is_no_thinking(kind, on):
    can = TemplateAbilities(thinking=kind)
    assert thinking_when_begun(None, "think", can) == thinking_when_begun(False, "think", can) == Thinking(on)
    with pytest.raises(RequestError, match=r"^thinking: .* Leave thinking out") as refused:
        thinking_when_begun(True, "thinking.type", can)
    assert refused.value.parameter == "thinking.type"
