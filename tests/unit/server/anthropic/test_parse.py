"""The body of a message becomes the chat request that it means, or an error that names the parameter."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.chat.abilities import TemplateAbilities
from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import EVERYBODY, Caller, Sampling
from qwen_edge.server.answering import Asked
from qwen_edge.server.anthropic.body import MessageBody, PromptBody, read_body
from qwen_edge.server.anthropic.parse import to_request
from qwen_edge.service.pipeline import ModelInfo

HI = [{"role": "user", "content": "hi"}]
LIGHT = {"name": "set_light", "description": "d", "input_schema": {"type": "object", "properties": {"on": {}}}}
EPHEMERAL = {"type": "ephemeral"}


def body_of(kind=MessageBody, *, ignore_unknown=False, **fields: Any):
    data = json.dumps({"messages": HI, "max_tokens": 9, **fields}).encode()
    return read_body(kind, data, ignore_unknown=ignore_unknown)


def asked(can="optional", caller=EVERYBODY, **defaults: Any) -> Asked:
    model = ModelInfo(Sampling(temperature=0.7, top_k=20, top_p=0.8), 4096, TemplateAbilities(thinking=can))
    return Asked(model, ChatConfig(**defaults), "", caller)


def request(can="optional", *, defaults: Any = None, **fields: Any):
    return to_request(body_of(**fields), asked(can, **(defaults or {})))


def refused(can="optional", **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        request(can, **fields)
    return error.value


def history(*messages: Any, **fields: Any) -> list[Any]:
    return [dict(message) for message in request(messages=list(messages), **fields).messages]


# messages


def test_system_is_the_first_message_as_text_or_as_blocks():
    blocks = [{"type": "text", "text": "a", "cache_control": EPHEMERAL}, {"type": "text", "text": "b"}]
    assert history(*HI, system="a") == [{"role": "system", "content": "a"}, *HI]
    assert history(*HI, system=blocks) == [{"role": "system", "content": "a\nb"}, *HI]
    for nothing in ("", [], None):
        assert history(*HI, system=nothing) == HI


def test_a_call_and_its_result_become_messages_of_the_template():
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}, "caller": {"type": "direct"}}
    found = history(
        *HI,
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "I "}, {"type": "text", "text": "look."}, call]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "1"},
                                                                          {"type": "text", "text": "2"}]},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such file", "is_error": True},
            {"type": "tool_result", "tool_use_id": "toolu_3"},
            {"type": "text", "text": "and?", "citations": None}]},
    )  # fmt: skip
    function = {"name": "f", "arguments": {"x": 1}}
    assert found[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "1\n2"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: no such file"},
        {"role": "tool", "tool_call_id": "toolu_3", "content": ""},
        {"role": "user", "content": "and?"},
    ]


def test_text_keeps_its_place_among_results():
    result = {"type": "tool_result", "tool_use_id": "t", "content": "r"}
    found = history({"role": "user", "content": [{"type": "text", "text": "a"}, result, {"type": "text", "text": "b"}]})
    assert [message["content"] for message in found] == ["a", "r", "b"]
    assert history({"role": "user", "content": []}) == [{"role": "user", "content": ""}]


def test_documents_of_text_and_search_results_are_read():
    blocks = [
        {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "inner"}]}},
        {"type": "search_result", "source": "http://x", "title": "S", "content": [{"type": "text", "text": "found"}]},
    ]
    [message] = history({"role": "user", "content": blocks})
    assert message["content"] == "T\nplain\ninner\nS\nhttp://x\nfound"


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
TEXT = {"type": "text", "text": "x"}


@pytest.mark.parametrize(
    ("content", "place", "kind"),
    [
        ([TEXT, IMAGE], "messages[1].content[1]", "image"),
        ([{"type": "tool_result", "tool_use_id": "t", "content": [TEXT, IMAGE]}], "messages[1].content[0].content[1]",
         "image"),
        ([{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}}],
         "messages[1].content[0]", "document with a source of type base64"),
        ([{"type": "document", "source": {"type": "content", "content": [IMAGE]}}],
         "messages[1].content[0].source.content[0]", "image"),
        ([{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}], "messages[1].content[0]",
         "server_tool_use"),
        ([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "x"}]}],
         "messages[1].content[0].content[0]", "tool_reference"),
    ],
)  # fmt: skip
def test_a_block_that_the_model_cannot_read_is_refused_at_its_place(content, place, kind):
    error = refused(messages=[*HI, {"role": "user", "content": content}])
    assert error.parameter == place
    assert error.message.startswith(f"{place}: a block of type {kind} is not supported")


def test_a_last_message_of_the_assistant_begins_the_answer():
    found = request(messages=[*HI, {"role": "assistant", "content": "The "}])
    assert (list(found.messages), found.begun, found.thinking) == (HI, "The ", False)
    blocks = [{"type": "text", "text": "The "}, {"type": "text", "text": "best"}]
    assert request(messages=[*HI, {"role": "assistant", "content": blocks}]).begun == "The best"
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    assert request(messages=[*HI, {"role": "assistant", "content": [*blocks, call]}]).begun == ""
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    assert refused(messages=[*HI, {"role": "assistant", "content": [thought, *blocks]}]).parameter
    both = refused(messages=[*HI, {"role": "assistant", "content": "x"}], thinking={"type": "enabled"})
    assert both.parameter == "thinking.type"


# thinking


@pytest.mark.parametrize(
    ("fields", "on", "budget"),
    [
        ({}, False, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True, 1024),
        ({"thinking": {"type": "enabled"}}, True, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, False, 0),
        ({"thinking": {"type": "disabled"}}, False, None),
        ({"thinking": {"type": "adaptive"}}, True, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, True, 512),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, True, None),
        ({"output_config": {"effort": "low"}}, False, None),
        ({"messages": [{"role": "user", "content": "hi /think"}]}, True, None),
        ({"defaults": {"thinking": True}}, True, None),
        ({"defaults": {"thinking": True}, "thinking": {"type": "disabled"}}, False, None),
    ],
)
def test_the_model_thinks_only_where_it_is_asked_to(fields, on, budget):
    found = request(**fields)
    assert (found.thinking, found.thinking_budget, found.return_reasoning) == (on, budget, True)


def test_a_model_that_always_thinks_does_so_unseen_unless_thinking_is_asked_for():
    assert (request("always").thinking, request("always").return_reasoning) == (None, False)
    assert request("always", thinking={"type": "enabled"}).return_reasoning
    assert request("always", thinking={"type": "adaptive"}).return_reasoning
    assert refused("always", thinking={"type": "disabled"}).parameter == "thinking.type"


def test_a_model_that_cannot_think_refuses_only_to_be_made_to():
    assert request("never").thinking is None
    assert request("never", thinking={"type": "disabled"}).thinking is False
    assert request("never", thinking={"type": "adaptive"}).thinking is None
    assert refused("never", thinking={"type": "enabled", "budget_tokens": 1024}).parameter == "thinking.type"


def test_thinking_that_is_omitted_is_not_sent():
    assert not request(thinking={"type": "enabled", "display": "omitted"}).return_reasoning


# tools and shapes


def test_tools_and_choice_are_those_of_the_other_dialects():
    offered = {"name": "set_light", "parameters": LIGHT["input_schema"], "description": "d"}
    found = request(tools=[{**LIGHT, "type": "custom", "cache_control": EPHEMERAL, "defer_loading": True}])
    assert found.tools == ({"function": offered, "type": "function"},)
    assert (found.requires_call, found.parallel_calls) == (False, True)
    one = request(tools=[LIGHT], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert (one.requires_call, one.parallel_calls) == (False, False)
    assert request(tools=[LIGHT], tool_choice={"type": "any"}).requires_call
    other = {"name": "other", "input_schema": {"type": "object"}}
    named = request(tools=[LIGHT, other], tool_choice={"type": "tool", "name": "other"})
    assert named.requires_call
    assert [name for name, _ in json.loads(named.call_shape.text)] == ["other"]
    assert request(tools=[LIGHT], tool_choice={"type": "none"}).tools == ()


@pytest.mark.parametrize(
    ("fields", "parameter", "words"),
    [
        ({"tools": [LIGHT, {"type": "web_search_20250305", "name": "web_search"}]}, "tools[1].type", "web_search_2025"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type", "bash_20250124"),
        ({"tools": [{"name": "f"}]}, "tools[0]", "input_schema"),
        ({"tools": [{**LIGHT, "input_schema": "x"}]}, "tools[0].input_schema", "object"),
        ({"tools": [LIGHT], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice", "no such function"),
        ({"tools": [LIGHT], "tool_choice": {"type": "tool"}}, "tool_choice.name", "missing"),
        ({"tools": [LIGHT], "tool_choice": {"type": "all"}}, "tool_choice.type", "one of auto, any, tool, none."),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "no tools"),
        ({"tools": [{**LIGHT, "strict": True, "input_schema": {"type": "object", "minProperties": 1}}]},
         "tools[0].input_schema", "minProperties"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format", "schema"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "array", "uniqueItems": True}}}},
         "output_config.format.schema", "uniqueItems"),
        ({"output_config": {"format": {"schema": {}}}, "output_format": {"schema": {}}},
         "output_format.schema", "both ask for a shape"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort", "must be one of none, minimal, low"),
        ({"thinking": {"type": "maybe"}}, "thinking.type", "must be one of enabled, disabled, adaptive."),
        ({"thinking": {}}, "thinking", "type"),
        ({"max_tokens": None}, "max_tokens", "Missing required parameter"),
        ({"max_tokens": 0}, "max_tokens", ">= 1"),
        ({"max_tokens": "9"}, "max_tokens", "int"),
        ({"temperature": 2.5}, "temperature", "<= 2"),
        ({"top_p": -1}, "top_p", ">= 0"),
        ({"stop_sequences": {}}, "stop_sequences", "array"),
        ({"messages": []}, "messages", ">= 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "one of user, assistant, system."),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "int"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", "str"),
        ({"system": [IMAGE]}, "system[0].type", "image"),
        ({"system": [{**TEXT, "cache_control": {"type": "ephemeral", "ttl": "1d"}}]}, "system[0].cache_control.ttl",
         "must be one of 5m, 1h."),
        ({"metadata": {"user_id": 5}}, "metadata.user_id", "int"),
        ({"container": "c"}, "container", "leave container out"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers", "offer its tools"),
        ({"thread": {"type": "create"}}, "thread", "whole conversation"),
        ({"surprise": 1}, "surprise", "Unknown parameter"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_its_name(fields, parameter, words):
    error = refused(**fields)
    assert (error.kind, error.parameter) == ("invalid_request", parameter)
    assert words in error.message


def test_structured_output_is_asked_for_by_two_names():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    for fields in ({"output_config": {"format": {"type": "json_schema", "schema": schema}}},
                   {"output_format": {"type": "json_schema", "schema": schema, "name": "x"}}):  # fmt: skip
        found = request(**fields)
        assert json.loads(found.shape.text) == schema
        assert json.loads(found.shown_schema) == schema


# the rest


def test_sampling_and_stop_texts():
    found = request(temperature=0.5, top_p=0.9, top_k=3, stop_sequences=["END", ""], max_tokens=7)
    assert (found.sampling.temperature, found.sampling.top_p, found.sampling.top_k) == (0.5, 0.9, 3)
    assert (found.stop, found.max_tokens) == (("END",), 7)
    assert request().sampling.top_k == 20


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 0),
        ({"cache_control": EPHEMERAL}, 300),
        ({"system": [{**TEXT, "cache_control": EPHEMERAL}]}, 300),
        ({"tools": [{**LIGHT, "cache_control": {**EPHEMERAL, "ttl": "1h", "scope": "global"}}]}, 3600),
        ({"system": [{**TEXT, "cache_control": {**EPHEMERAL, "ttl": "1h"}}],
          "messages": [{"role": "user", "content": [{**TEXT, "cache_control": {**EPHEMERAL, "ttl": "5m"}}]}]}, 3600),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x",
                                                     "cache_control": EPHEMERAL}]}]}, 300),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t",
                                                     "content": [{**TEXT, "cache_control": EPHEMERAL}]}]}]}, 300),
        ({"system": [{**TEXT, "cache_control": None}]}, 0),
    ],
)  # fmt: skip
def test_cache_control_pins_the_prompt_for_its_time(fields, seconds):
    assert request(**fields).pin_seconds == seconds


def test_the_pin_of_an_administrators_client_is_not_for_all_keys():
    admin = asked(caller=Caller("boss", True))
    assert to_request(body_of(cache_control=EPHEMERAL), admin).caller == Caller("boss", False)
    assert to_request(body_of(), admin).caller == Caller("boss", True)


def test_hints_change_nothing():
    hints = {
        "service_tier": "auto", "speed": "fast", "inference_geo": "eu", "container": None, "mcp_servers": [],
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "fallbacks": [{"model": "x"}], "betas": ["a"], "anthropic_version": "bedrock-2023-05-31", "diagnostics": {},
        "unknown": None,
    }  # fmt: skip
    seed = {"seed": 1}
    assert request(**hints, **seed) == request(**seed)


def test_counting_needs_no_max_tokens_and_takes_what_a_message_takes():
    assert body_of(PromptBody, max_tokens=None, system="x").max_tokens is None
    assert body_of(PromptBody, stream=True, temperature=1).max_tokens == 9


def test_unknown_parameters_pass_where_the_settings_let_them():
    assert body_of(ignore_unknown=True, surprise=1, thinking={"type": "enabled", "more": 2}).max_tokens == 9


FIELDS = sorted(MessageBody.__struct_encode_fields__)
KEYS = ["type", "text", "content", "source", "data", "thinking", "tool_use_id", "id", "name", "input", "input_schema",
        "cache_control", "ttl", "role", "format", "schema", "effort", "budget_tokens", "user_id", "title", "is_error",
        "properties", "strict", "description"]  # fmt: skip
WORDS = ["text", "document", "tool_result", "tool_use", "thinking", "search_result", "ephemeral", "json_schema", "user",
         "assistant", "system", "enabled", "adaptive", "tool", "any", "object", "content", "", "x", "1h"]  # fmt: skip
numbers = st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
blocks = st.fixed_dictionaries(
    {"type": st.sampled_from(WORDS)},
    optional={key: anything for key in KEYS if key != "type"},
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.lists(blocks, max_size=3) | anything}
)


@settings(max_examples=200)
@given(
    st.lists(turns, min_size=1, max_size=3) | st.just(HI) | anything,
    st.dictionaries(st.sampled_from(FIELDS), anything | st.lists(blocks, max_size=2), max_size=3),
    st.sampled_from(["never", "optional", "always"]),
)
def test_any_body_becomes_a_request_or_an_error_of_the_client(messages, fields, can):
    data = json.dumps({"max_tokens": 5, "messages": messages, **fields}, allow_nan=False, default=str).encode()
    try:
        to_request(read_body(MessageBody, data, ignore_unknown=False), asked(can))
    except RequestError as error:
        assert error.kind == "invalid_request"
