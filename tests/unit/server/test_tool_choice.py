"""tools, tool_choice and parallel_tool_calls: which calls may come, and in which shape."""

import json

import pytest

from tests.unit.server.openai.test_shapes import asked, refused

SCHEMA = {"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]}
LIGHT = {"type": "function", "function": {"name": "light", "parameters": SCHEMA}}
FAN = {"type": "function", "function": {"name": "fan", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "fan"}}


def tool(parameters, **more):
    return {"type": "function", "function": {"name": "light", "parameters": parameters, **more}}


def held(request):
    """The names that may be called, and whether a call must come."""
    return [name for name, _ in json.loads(request.call_shape.text)], request.requires_call


def allowed(mode, *names):
    return {"mode": mode, "tools": [{"type": "function", "function": {"name": name}} for name in names]}


@pytest.mark.parametrize(
    ("choice", "names", "required"),
    [
        ("auto", ["light", "fan"], False),
        (None, ["light", "fan"], False),
        ("", ["light", "fan"], False),
        ({}, ["light", "fan"], False),
        ({"type": "auto"}, ["light", "fan"], False),
        ("required", ["light", "fan"], True),
        ("any", ["light", "fan"], True),
        ({"type": "any"}, ["light", "fan"], True),
        (NAMED, ["fan"], True),
        ({"function": {"name": "fan"}}, ["fan"], True),
        ({"type": "function", "name": "fan"}, ["fan"], True),
        ({"type": "allowed_tools", "allowed_tools": allowed("auto", "fan")}, ["fan"], False),
        ({"type": "allowed_tools", "allowed_tools": allowed("required", "fan")}, ["fan"], True),
        ({"type": "allowed_tools", **allowed("auto", "fan", "light", "fan")}, ["fan", "light"], False),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "fan"}]}, ["fan"], False),
    ],
)
def test_a_choice_says_which_tools_may_be_called(choice, names, required):
    request = asked(tools=[LIGHT, FAN], tool_choice=choice)
    assert held(request) == (names, required)
    assert [one["function"]["name"] for one in request.tools] == ["light", "fan"], "all of them are shown"


@pytest.mark.parametrize("choice", ["none", {"type": "none"}])
def test_none_shows_no_tools(choice):
    request = asked(tools=[LIGHT], tool_choice=choice)
    assert (request.tools, request.call_shape, request.requires_call) == ((), None, False)


@pytest.mark.parametrize("choice", ["auto", "none", None, ""])
@pytest.mark.parametrize("tools", [None, [], [None]])
def test_no_tools_need_no_choice(choice, tools):
    request = asked(tools=tools, tool_choice=choice)
    assert (request.tools, request.call_shape) == ((), None)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("light", 'must be "auto", "none", "required"'),
        ({"type": "function"}, 'must be "auto", "none", "required"'),
        ({"type": "function", "function": {}}, 'must be "auto", "none", "required"'),
        ({"type": "custom", "custom": {"name": "light"}}, 'must be "auto", "none", "required"'),
        ({"type": "function", "function": {"name": "rm"}}, "names 'rm', and tools offers no such function"),
        ({"type": "allowed_tools"}, "allowed_tools needs a mode"),
        ({"type": "allowed_tools", "allowed_tools": allowed("some", "fan")}, "allowed_tools needs a mode"),
        ({"type": "allowed_tools", "allowed_tools": allowed("auto")}, "allowed_tools needs a mode"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": "fan"}}, "must name functions"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{}]}}, "must name functions"),
        ({"type": "allowed_tools", "allowed_tools": allowed("auto", "rm")}, "names 'rm'"),
        (5, "Expected str"),
    ],
)
def test_a_choice_that_cannot_be_is_told(choice, words):
    error = refused(tools=[LIGHT, FAN], tool_choice=choice)
    assert error.parameter == "tool_choice"
    assert words in error.message


@pytest.mark.parametrize("choice", ["required", "any"])
def test_a_call_needs_tools(choice):
    error = refused(tool_choice=choice)
    assert (error.parameter, error.message) == (
        "tool_choice",
        "tool_choice asks for a call, and there are no tools: send tools, or leave tool_choice out.",
    )


@pytest.mark.parametrize("parameters", [None, {}])
def test_a_function_without_parameters_takes_an_empty_object(parameters):
    request = asked(tools=[tool(parameters)])
    assert json.loads(request.call_shape.text) == [["light", {"type": "object", "properties": {}}]]


def test_arguments_are_an_object_also_where_the_schema_does_not_say_so():
    request = asked(tools=[tool({"properties": {"room": {}}})])
    assert json.loads(request.call_shape.text) == [["light", {"type": "object", "properties": {"room": {}}}]]


NOT = {"type": "object", "properties": {"room": {"not": {}}}}


@pytest.mark.parametrize("strict", [{}, {"strict": False}, {"strict": None}])
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_keyword_that_is_not_enforced_is_passed_over(strict, choice):
    request = asked(tools=[tool(NOT, **strict)], tool_choice=choice)
    assert request.unenforced == ("light: not (at /properties/room)",)


def test_a_strict_function_is_enforced_or_refused():
    error = refused(tools=[FAN, tool(NOT, strict=True)])
    assert (error.parameter, error.code) == ("tools[1].function.parameters", "unsupported_value")
    assert "not (at /properties/room) is not enforced here" in error.message
    assert "response_format" not in error.message


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"type": "string"}, "its type must be object"),
        ({"$ref": "https://example.com/a.json"}, "leads out of the schema"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no finite answer"),
        ({"properties": []}, "properties must be an object"),
        ({"type": "object", "properties": {"a": {"pattern": "(?!x)y"}}}, "cannot be kept (at /properties/a)"),
        ({"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}, "no answer fits: enum is empty"),
    ],
)
def test_a_schema_that_cannot_be_used_leaves_any_object_unless_a_call_must_fit(parameters, words):
    request = asked(tools=[tool(parameters)])
    assert json.loads(request.call_shape.text) == [["light", {"type": "object"}]]
    [unenforced] = request.unenforced
    assert unenforced.startswith("light: all of its schema (tools[0].function.parameters: ") and words in unenforced
    for error in (
        refused(tools=[tool(parameters, strict=True)]),
        refused(tools=[tool(parameters)], tool_choice="required"),
    ):
        assert error.parameter == "tools[0].function.parameters"
        assert words in error.message


def test_only_tools_that_may_be_called_must_be_usable():
    broken = {"type": "function", "function": {"name": "broken", "parameters": {"type": "string"}}}
    assert held(asked(tools=[broken, FAN], tool_choice=NAMED)) == (["fan"], True)


@pytest.mark.parametrize(("given", "parallel"), [({}, True), ({"parallel_tool_calls": None}, True),
    ({"parallel_tool_calls": True}, True), ({"parallel_tool_calls": False}, False)])  # fmt: skip
def test_parallel_calls_are_allowed_unless_switched_off(given, parallel):
    assert asked(tools=[LIGHT], **given).parallel_calls is parallel


@pytest.mark.parametrize("names", [("light", "light"), ("",), ("light", "")])
def test_tools_that_a_call_could_not_tell_apart_are_refused(names):
    error = refused(tools=[{"type": "function", "function": {"name": name}} for name in names])
    assert error.parameter == f"tools[{len(names) - 1}]"


def test_the_strict_tools_that_may_be_called_are_named():
    tools = [tool(SCHEMA, strict=True), FAN]
    assert asked(tools=tools).strict_calls == ("light",)
    assert asked(tools=tools, tool_choice=NAMED).strict_calls == ()
