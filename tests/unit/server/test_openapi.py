"""/openapi.json says what the types check, no less and no more."""

from __future__ import annotations

import json
from typing import Annotated, Any

import jsonschema
import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.core.errors import RequestError
from qwen_edge.server.app import ALL_DIALECTS, ROUTES
from qwen_edge.server.dialects import Dialects
from qwen_edge.server.openai import errors
from qwen_edge.server.openai.chat_body import ChatBody, read_body
from qwen_edge.server.openapi import Description
from qwen_edge.server.parameters import Group, fields_of, only, read_as, treatment_of
from qwen_edge.server.routes import Route, is_open, v1
from tests.unit.server.test_parameters import JSON, MESSAGES


def description(routes=ROUTES, dialects=ALL_DIALECTS, *, keys=False, ignores_unknown=False) -> dict[str, Any]:
    return json.loads(Description(routes, dialects, keys=keys, ignores_unknown=ignores_unknown).page)


DOCUMENT = description()
CHAT = jsonschema.Draft202012Validator({"$ref": "#/components/schemas/ChatBody", "components": DOCUMENT["components"]})


def is_read(body: Any) -> bool:
    try:
        read_body(json.dumps(body).encode(), ignore_unknown=False)
    except RequestError:
        return False
    return True


# values that many parameters accept, beside any JSON
LIKELY = st.sampled_from(
    [0, 1, -1, 2, 1.0, 0.5, True, False, None, "", "none", "low", "24h", "text", [], ["text"], ["a", None], {}, "auto"]
)
# what the dialect's own code checks of the whole request, and a schema can say of its fields
ELSEWHERE = {"max_tokens", "max_completion_tokens", "n_predict", "top_logprobs"}


@given(st.sampled_from(sorted(fields_of(ChatBody))), LIKELY | JSON)
def test_a_value_is_accepted_if_and_only_if_it_fits_the_schema(name, value):
    body = {"messages": MESSAGES, name: value}
    if name in ELSEWHERE and value == 0:
        return
    if name == "top_logprobs":
        body["logprobs"] = True
    assert is_read(body) == CHAT.is_valid(body), body


MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool", "function", "developer", "robot", None]),
        "content": LIKELY
        | st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["text", "input_text", "output_text", "refusal", "thinking", "image_url"])},
                optional=dict.fromkeys(("text", "refusal", "thinking", "other"), LIKELY),
            )
            | st.none(),
            max_size=2,
        ),
        "tool_calls": LIKELY
        | st.lists(st.fixed_dictionaries({"function": st.just({"name": "f"}) | LIKELY}, optional={"type": LIKELY})),
        **dict.fromkeys(("name", "prefix", "reasoning", "audio", "images", "cache_control"), LIKELY),
    },
)


@given(st.lists(MESSAGE, max_size=2) | LIKELY)
def test_messages_are_accepted_if_and_only_if_they_fit_the_schema(messages):
    body = {"messages": messages}
    assert is_read(body) == CHAT.is_valid(body), body


TOOL = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["function", "custom", None, 1]),
        "function": st.fixed_dictionaries({"name": LIKELY}, optional={"parameters": LIKELY, "more": LIKELY}) | LIKELY,
        "name": LIKELY,
    },
)


@given(st.lists(TOOL | st.none(), max_size=2), st.lists(TOOL, max_size=2) | st.none())
def test_tools_are_accepted_if_and_only_if_they_fit_the_schema(tools, functions):
    body = {"messages": MESSAGES, "tools": tools, "functions": functions}
    assert is_read(body) == CHAT.is_valid(body), body


@pytest.mark.parametrize(
    ("more", "fits"),
    [
        ({"max_tokens": 0}, False),
        ({"max_tokens": -1}, True),
        ({"n_predict": 0}, False),
        ({"top_logprobs": 2}, False),
        ({"top_logprobs": 2, "logprobs": False}, False),
        ({"top_logprobs": 2, "logprobs": True}, True),
        ({"top_logprobs": 0}, True),
        ({"tools": [{"function": {"name": "f"}}], "functions": [{"name": "f"}]}, False),
        ({"tools": [], "functions": [{"name": "f"}]}, True),
        ({"unknown": 1}, False),
        ({"unknown": None}, True),
        ({"stream_options": {"unknown": 1}}, False),
        ({"best_of": 1.0}, True),
        ({"best_of": 2}, False),
        ({"audio": {}}, False),
    ],
)
def test_the_schema_says_what_holds_between_parameters(more, fits):
    assert CHAT.is_valid({"messages": MESSAGES, **more}) == fits


def test_a_server_that_ignores_unknown_parameters_says_so():
    components = description(ignores_unknown=True)["components"]["schemas"]
    assert "additionalProperties" not in components["ChatBody"]


def test_every_parameter_says_how_it_is_treated():
    properties = DOCUMENT["components"]["schemas"]["ChatBody"]["properties"]
    assert set(properties) == set(fields_of(ChatBody))
    for name, kind in fields_of(ChatBody).items():
        assert properties[name]["x-treatment"] == treatment_of(kind)
        assert properties[name]["description"], name


def test_every_route_is_described_once_with_its_aliases():
    operations = [
        (path, method, operation) for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
    ]
    assert len(operations) == len(ROUTES)
    assert len({operation["operationId"] for _, _, operation in operations}) == len(ROUTES)
    chat = DOCUMENT["paths"]["/v1/chat/completions"]["post"]
    assert chat["x-aliases"] == ["/chat/completions", "/v1/chat/completions/", "/chat/completions/"]
    assert DOCUMENT["paths"]["/v1/models/{name}"]["get"]["parameters"][0]["name"] == "name"
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}


def test_keys_are_asked_for_where_the_server_asks_for_them():
    assert {} in DOCUMENT["security"]
    with_keys = description(keys=True)
    assert with_keys["security"] == [{"bearer": []}, {"x-api-key": []}]
    for path, item in with_keys["paths"].items():
        assert all(("security" in operation) == is_open(path) for operation in item.values())


def test_it_is_openapi_and_every_schema_is_one():
    assert DOCUMENT["openapi"] == "3.1.0"
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    text = json.dumps(DOCUMENT)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(DOCUMENT["components"]["schemas"])


class Message(Group):
    """Has the same name as a struct of another dialect."""

    text: str
    tone: Annotated[str | None, only("plain")] = None


class Body(Group):
    messages: Annotated[list[dict[str, Any]], read_as(list[Message])]


class OtherError(msgspec.Struct):
    error: str


class Other:
    error_type = OtherError
    error_response = staticmethod(errors.error_response)
    http_error_response = staticmethod(errors.http_error_response)


async def other(_: web.Request) -> web.Response:
    return web.Response()


def test_a_further_dialect_has_its_own_errors_bodies_and_streams():
    route = Route(
        "POST", "/api/talk", other, "Talk.", body=Body, stream="application/x-ndjson", query={"beta": "Anything."}
    )
    found = description((*ROUTES, route), Dialects(errors, {"/api": Other()}))
    operation = found["paths"]["/api/talk"]["post"]
    assert operation["responses"]["400"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/OtherError"
    }
    assert "application/x-ndjson" in operation["responses"]["200"]["content"]
    assert operation["parameters"][0]["in"] == "query"
    validator = jsonschema.Draft202012Validator(
        {**operation["requestBody"]["content"]["application/json"]["schema"], "components": found["components"]}
    )
    assert validator.is_valid({"messages": [{"text": "hi", "tone": "plain"}]})
    assert not validator.is_valid({"messages": [{"text": "hi", "tone": "loud"}]})
    assert not validator.is_valid({"messages": [{"role": "user"}]})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_a_path_is_also_there_without_v1_and_with_a_slash(path):
    bare = path.removeprefix("/v1")
    assert v1(path) == (bare, f"{path}/", f"{bare}/")
    assert next(route for route in ROUTES if route.path == path).also == v1(path)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("ChatBody", ("max_tokens", "max_completion_tokens", "n_predict")),
        ("ResponsesBody", ("max_output_tokens", "max_tokens", "max_completion_tokens")),
    ],
)
def test_a_limit_of_no_tokens_which_is_refused_is_not_in_the_description(body, names):
    properties = description()["components"]["schemas"][body]["properties"]
    for name in names:
        assert '"not": {"const": 0}' in json.dumps(properties[name])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/api/create"),
        ("delete", "/api/delete"),
        ("head", "/api/blobs/{digest}"),
        ("post", "/v1/responses/{id}/cancel"),
    ],
)
def test_a_path_that_always_refuses_promises_no_answer(method, path):
    statuses = DOCUMENT["paths"][path][method]["responses"]
    assert statuses and not [status for status in statuses if status.startswith("2")]
