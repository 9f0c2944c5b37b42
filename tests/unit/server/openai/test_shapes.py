"""Every parameter that asks for a shape: what is made of it, and which mistake is told in which words."""

import json

import pytest

from qwen_edge.chat.abilities import TemplateAbilities
from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Sampling, Shape
from qwen_edge.server.answering import Asked
from qwen_edge.server.openai.chat_body import read_body
from qwen_edge.server.openai.parse import to_request
from qwen_edge.service.pipeline import ModelInfo

MODEL = ModelInfo(
    Sampling(temperature=0.6, top_k=20, top_p=0.95), 4096, TemplateAbilities(tools=True, thinking="optional")
)
SCHEMA = {"type": "object", "properties": {"percent": {"type": "integer"}}, "required": ["percent"]}
TEXT = json.dumps(SCHEMA, separators=(",", ":"))
HELD = Shape("json_schema", TEXT)
OBJECT = Shape("json_schema", '{"type":"object"}')
FORMAT = {"type": "json_schema", "json_schema": {"name": "command", "schema": SCHEMA}}
INSIDE = "response_format.json_schema.schema"


def asked(defaults=None, **body):
    data = json.dumps({"messages": [{"role": "user", "content": "hi"}], **body}).encode()
    parsed = read_body(data, ignore_unknown=False)
    return to_request(parsed, Asked(MODEL, defaults or ChatConfig()))


def refused(**body):
    with pytest.raises(RequestError) as error:
        asked(**body)
    return error.value


def with_strict(schema, strict=None):
    inner = {"name": "x", "schema": schema} if strict is None else {"name": "x", "schema": schema, "strict": strict}
    return {"type": "json_schema", "json_schema": inner}


@pytest.mark.parametrize(
    ("body", "shape", "parameter"),
    [
        ({"response_format": FORMAT}, HELD, INSIDE),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, HELD, INSIDE),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, HELD, "response_format.schema"),
        ({"response_format": {"type": "json_object"}}, OBJECT, "response_format"),
        ({"json_schema": SCHEMA}, HELD, "json_schema"),
        ({"guided_json": SCHEMA}, HELD, "guided_json"),
        ({"guided_json": TEXT}, HELD, "guided_json"),
        ({"guided_regex": "[a-z]+"}, Shape("regex", "[a-z]+"), "guided_regex"),
        ({"guided_choice": ["on", "off"]}, Shape("choice", '["on","off"]'), "guided_choice"),
        ({"guided_grammar": 'start: "on"'}, Shape("lark", 'start: "on"'), "guided_grammar"),
        ({"grammar": 'root ::= "on"'}, Shape("gbnf", 'root ::= "on"'), "grammar"),
        ({"grammar": 'start: "on"'}, Shape("lark", 'start: "on"'), "grammar"),
        ({"structured_outputs": {"json": SCHEMA}}, HELD, "structured_outputs.json"),
        ({"structured_outputs": {"json": TEXT}}, HELD, "structured_outputs.json"),
        ({"structured_outputs": {"json_object": True}}, OBJECT, "structured_outputs.json_object"),
        ({"structured_outputs": {"regex": "a"}}, Shape("regex", "a"), "structured_outputs.regex"),
        ({"structured_outputs": {"choice": ["on"]}}, Shape("choice", '["on"]'), "structured_outputs.choice"),
        (
            {"structured_outputs": {"grammar": 'root ::= "a"'}},
            Shape("gbnf", 'root ::= "a"'),
            "structured_outputs.grammar",
        ),
        ({"json_schema": SCHEMA, "x_json_whitespace": True}, Shape("json_schema", TEXT, True), "json_schema"),
    ],
)
def test_each_parameter_asks_for_its_shape(body, shape, parameter):
    request = asked(**body)
    assert (request.shape, request.shape_parameter) == (shape, parameter)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"response_format": None},
        {"response_format": {}},
        {"response_format": {"type": None}},
        {"response_format": {"type": "text"}},
        {"json_schema": None, "guided_json": None, "guided_regex": None, "guided_choice": None},
        {"guided_grammar": None, "grammar": None, "structured_outputs": None},
        {"guided_regex": "", "grammar": ""},
        {"structured_outputs": {}},
        {"structured_outputs": {"json": None, "regex": None, "choice": None, "grammar": None, "json_object": None}},
        {"structured_outputs": {"json_object": False}},
        {"x_json_whitespace": None, "x_schema_in_prompt": None},
    ],
)
def test_null_and_empty_values_ask_for_no_shape(body):
    assert asked(**body).shape is None


def test_null_inside_a_parameter_counts_as_left_out():
    named = {"name": None, "description": None, "strict": None, "schema": SCHEMA}
    assert asked(response_format={"type": "json_schema", "json_schema": named, "schema": None}).shape == HELD
    assert asked(guided_choice=["on", None]).shape == Shape("choice", '["on"]')
    assert asked(response_format={"type": "json_object", "schema": None}).shape == OBJECT


@pytest.mark.parametrize(
    ("body", "parameter", "words"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type", "'xml' is unknown"),
        ({"response_format": "json_object"}, "response_format", "Expected object"),
        ({"response_format": {"type": "json_schema"}}, INSIDE, "is missing"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": None}}}, INSIDE, "is missing"),
        ({"response_format": with_strict("x")}, INSIDE, "Expected object"),
        ({"response_format": with_strict(SCHEMA, "yes")}, "response_format.json_schema.strict", "Expected bool"),
        ({"response_format": {"json_schema": {"schema": SCHEMA}}}, "response_format.type", "type is missing"),
        ({"response_format": {"schema": SCHEMA}}, "response_format.type", "type is missing"),
        (
            {"response_format": {"type": "text", "schema": SCHEMA}},
            "response_format.type",
            'Send the type "json_schema"',
        ),
        ({"response_format": {**FORMAT, "type": "text"}}, "response_format.type", "would not be used"),
        ({"response_format": {**FORMAT, "type": "json_object"}}, "response_format.type", "would not be used"),
        ({"response_format": {**FORMAT, "schema": SCHEMA}}, "response_format.schema", "both ask for a shape"),
        ({"guided_regex": "(?<!a)b"}, "guided_regex", "look-around, as in (?<!...), cannot be kept"),
        ({"json_schema": []}, "json_schema", "Expected object"),
        ({"guided_json": "{"}, "guided_json", "is no JSON schema"),
        ({"guided_json": "[]"}, "guided_json", "is no JSON schema"),
        ({"guided_choice": []}, "guided_choice", "must hold 1 to 1024 texts"),
        ({"guided_choice": [None]}, "guided_choice", "must hold 1 to 1024 texts"),
        ({"guided_choice": ["on", ""]}, "guided_choice", "none of them empty"),
        ({"guided_choice": ["x"] * 1025}, "guided_choice", "must hold 1 to 1024 texts"),
        ({"guided_choice": ["on", 1]}, "guided_choice[1]", "Expected str"),
        ({"guided_regex": 1}, "guided_regex", "Expected str"),
        ({"grammar": "a" * (1 << 17)}, "grammar", "more than 65536 characters"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "must hold 1 to 1024 texts"),
        ({"structured_outputs": "json"}, "structured_outputs", "Expected object"),
        ({"x_json_whitespace": 1}, "x_json_whitespace", "Expected bool"),
        ({"x_schema_in_prompt": "no"}, "x_schema_in_prompt", "Expected bool"),
        ({"json_schema": SCHEMA, "guided_regex": "a"}, "guided_regex", "json_schema and guided_regex both ask"),
        ({"structured_outputs": {"json": SCHEMA, "regex": "a"}}, "structured_outputs.regex", "Send one of them"),
        ({"response_format": FORMAT, "grammar": 'start: "a"'}, "grammar", "both ask for a shape"),
    ],
)
def test_a_mistake_names_its_parameter(body, parameter, words):
    error = refused(**body)
    assert error.parameter == parameter
    assert words in error.message


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"structured_outputs": {"chioce": ["on"]}}, "structured_outputs.chioce"),
        ({"response_format": {"type": "json_object", "shema": SCHEMA}}, "response_format.shema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strickt": True}}},
         "response_format.json_schema.strickt"),
    ],
)  # fmt: skip
def test_a_misspelled_name_inside_a_parameter_is_told(body, parameter):
    error = refused(**body)
    assert (error.code, error.parameter) == ("unknown_parameter", parameter)


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        ({"guided_jsn": SCHEMA}, "Did you mean guided_json?"),
        ({"strict": True}, "Did you mean response_format.json_schema.strict?"),
        ({"json_object": True}, "Did you mean structured_outputs.json_object?"),
        ({"response_format": {"type": "json_object", "x_json_whitespace": True}}, "Did you mean x_json_whitespace?"),
        ({"response_format": {"type": "json_schema", "json_schema": SCHEMA}}, "in response_format.json_schema.schema."),
        ({"structured_outputs": {"chioce": ["on"]}}, "Did you mean structured_outputs.choice?"),
        ({"colour": "red"}, "Leave the parameter out."),
        ({"x" * 100_000: 1}, "Leave the parameter out."),
    ],
)
def test_an_unknown_parameter_comes_with_the_one_that_was_meant(body, advice):
    error = refused(**body)
    assert error.code == "unknown_parameter"
    assert advice in error.message


# what is not enforced

NOT = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
FORM = {"type": "object", "properties": {"a": {"type": "string", "format": "color"}}}


@pytest.mark.parametrize("strict", [None, True])
def test_a_keyword_that_is_not_enforced_is_refused_with_its_place(strict):
    error = refused(response_format=with_strict(NOT, strict))
    assert (error.parameter, error.code) == (INSIDE, "unsupported_value")
    assert "not (at /properties/a) is not enforced here" in error.message
    assert '"strict": false' in error.message


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"const": 2**60}, "const (at /) is not enforced here, because it has a number beyond 2^53."),
        ({"type": "integer", "minimum": 2**60}, "minimum (at /) is not enforced here, because it has a number"),
        ({"oneOf": [{"type": "string"}, {"type": "string"}]}, "because a value may fit two of its schemas: anyOf"),
        ({"type": "object", "minProperties": 1}, "unless as many properties are required"),
        ({"properties": {"a": {}, "b": {}}, "maxProperties": 1}, "because the schema names optional properties"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems (at /) is not enforced here. Leave"),
    ],
)
def test_a_keyword_that_is_enforced_in_other_schemas_comes_with_the_reason(schema, why):
    assert why in refused(json_schema=schema).message


def test_a_keyword_that_is_not_enforced_is_passed_over_without_strict():
    request = asked(response_format=with_strict(NOT, strict=False))
    assert request.unenforced == ("not (at /properties/a)",)


def test_other_parameters_cannot_pass_over_a_keyword():
    for body in ({"guided_json": NOT}, {"json_schema": NOT}, {"structured_outputs": {"json": NOT}}):
        assert "not (at /properties/a)" in refused(**body).message


def test_a_format_that_is_not_enforced_is_refused_only_if_strict():
    for strict in (None, False):
        request = asked(response_format=with_strict(FORM, strict))
        assert request.unenforced == ("format color (at /properties/a)",)
    assert "format color (at /properties/a)" in refused(response_format=with_strict(FORM, strict=True)).message


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


ENDLESS = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"enum": ["x" * (1 << 18)]}, "more than 131072 characters"),
        (nested(70), "nested more than 60 deep"),
        (ENDLESS, "no finite answer fits"),
        ({"$ref": "#/$defs/room"}, "$ref: #/$defs/room leads nowhere"),
        ({"$ref": "https://example.com/a.json"}, "leads out of the schema"),
        ({"properties": []}, "properties must be an object"),
        ({"type": "object", "properties": {"a": 5}}, "(at /properties/a)"),
        ({"anyOf": {}}, "anyOf must be a list"),
        ({"type": "strng"}, "type: Invalid enum value 'strng'"),
        ({"type": "object", "properties": {"a": {"type": 5}}}, "(at /properties/a)"),
        ({"properties": {"a": {"minItems": "2"}}}, "minItems: Expected int, got str (at /properties/a)"),
        ({"required": 5}, "required: Expected array, got int"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_its_reason(schema, words):
    for body, parameter in [
        ({"response_format": with_strict(schema)}, INSIDE),
        ({"response_format": with_strict(schema, strict=False)}, INSIDE),
        ({"guided_json": schema}, "guided_json"),
        ({"structured_outputs": {"json": schema}}, "structured_outputs.json"),
    ]:
        error = refused(**body)
        assert error.parameter == parameter
        assert words in error.message
        assert len(error.message) < 500


# what the model is shown


def test_the_model_is_shown_the_schema():
    for body in ({"response_format": FORMAT}, {"json_schema": SCHEMA}, {"guided_json": TEXT}):
        assert asked(**body).shown_schema == TEXT
        assert asked(**body, x_schema_in_prompt=True).shown_schema == TEXT
        assert asked(**body, x_schema_in_prompt=False).shown_schema == ""


@pytest.mark.parametrize(
    "body", [{"response_format": {"type": "json_object"}}, {"guided_regex": "a"}, {"guided_choice": ["a"]}, {}]
)
def test_there_is_nothing_to_show_without_a_schema(body):
    assert asked(**body).shown_schema == ""


# thinking with an end


@pytest.mark.parametrize(
    ("body", "budget", "thinking"),
    [
        ({}, None, None),
        ({"thinking_budget": 50}, 50, None),
        ({"reasoning": {"max_tokens": 50}}, 50, None),
        ({"reasoning": {"max_tokens": 50.0}}, 50, None),
        ({"thinking_budget": 20, "reasoning": {"max_tokens": 50}}, 20, None),
        ({"thinking_budget": None, "reasoning": {"max_tokens": None}}, None, None),
        ({"thinking_budget": 0}, 0, False),
        ({"thinking_budget": 0, "enable_thinking": True}, 0, False),
        ({"thinking_budget": 50, "enable_thinking": True}, 50, True),
    ],
)
def test_the_budget_of_thinking(body, budget, thinking):
    request = asked(**body)
    assert (request.thinking_budget, request.thinking) == (budget, thinking)


def test_the_settings_budget_holds_where_the_request_has_none():
    defaults = ChatConfig(thinking_budget=100)
    assert asked(defaults).thinking_budget == 100
    assert asked(defaults, thinking_budget=20).thinking_budget == 20
    assert asked(defaults, reasoning={"max_tokens": 20}).thinking_budget == 20


def test_the_settings_say_whether_loops_are_stopped():
    assert asked().stops_loops
    assert not asked(ChatConfig(stop_loops=False)).stops_loops


@pytest.mark.parametrize("schema", [{"items": [{"type": "integer"}]}, {"minimum": 3, "exclusiveMinimum": True}])
def test_answers_and_calls_are_held_to_schemas_of_older_drafts(schema):
    new = {"prefixItems": [{"type": "integer"}]} if "items" in schema else {"exclusiveMinimum": 3}
    answer = asked(json_schema={"type": "object", "properties": {"a": schema}})
    assert json.loads(answer.shape.text)["properties"]["a"] == new
    assert json.loads(answer.shown_schema)["properties"]["a"] == new
    function = {"name": "f", "parameters": {"properties": {"a": schema}}, "strict": True}
    call = asked(tools=[{"type": "function", "function": function}], tool_choice="required")
    assert json.dumps(new, separators=(",", ":")) in call.call_shape.text
    assert not answer.unenforced and not call.unenforced
