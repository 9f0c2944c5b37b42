"""Closing a schema's objects loses nothing that a client asked for: an answer still fits, and there still is one."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from llguidance import LLMatcher

from qwen_edge.protocol.messages import Shape
from qwen_edge.structured.closed import closed
from qwen_edge.structured.compiler import Compiler
from qwen_edge.structured.constraint import Constraint
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.schema import check
from tests.unit.structured import vocabulary
from tests.unit.structured.schemas import schemas
from tests.unit.structured.wild import wild_schemas
from tests.unit.structured.writers import noise, written

_END = vocabulary.END
_CLOSING = (_END, *tuple(b'"}]'), vocabulary.TOKENS.index(b'"}'))
_NAMES = st.sampled_from(["a", "b", "c"])
_OBJECTS = st.builds(
    lambda names, required: {"type": "object", "properties": {name: {"type": "null"} for name in names}, **required},
    st.lists(_NAMES, max_size=2, unique=True),
    st.one_of(st.just({}), st.builds(lambda names: {"required": names}, st.lists(_NAMES, max_size=1))),
)
_VALUES = st.dictionaries(_NAMES, st.none(), max_size=2)


@st.composite
def _in_parts(draw: st.DrawFn) -> dict[str, Any]:
    """A schema of one object that several keywords describe together."""
    parts = {
        "properties": st.dictionaries(_NAMES, st.just({"type": "null"}), max_size=2),
        "required": st.lists(_NAMES, min_size=1, max_size=2, unique=True),
        "patternProperties": st.just({"^c": {"type": "null"}}),
        "additionalProperties": st.sampled_from([True, {"type": "null"}]),
        "minProperties": st.integers(0, 2),
        "anyOf": st.lists(_OBJECTS, min_size=1, max_size=2),
        "oneOf": st.lists(_OBJECTS, min_size=1, max_size=1),
        "allOf": st.lists(_OBJECTS, min_size=1, max_size=2),
        "$ref": st.just("#/$defs/one"),
        "const": _VALUES,
        "enum": st.lists(_VALUES, min_size=1, max_size=2),
    }
    names = draw(st.lists(st.sampled_from(list(parts)), min_size=1, max_size=3, unique=True))
    schema = {name: draw(parts[name]) for name in names}
    return {"type": "object", **schema, "$defs": {"one": draw(_OBJECTS)}}


_all = st.one_of(_in_parts(), schemas(), wild_schemas())
_few = settings(max_examples=60, suppress_health_check=list(HealthCheck))
_many = settings(max_examples=3000, suppress_health_check=list(HealthCheck))


@cache
def _compiler() -> Compiler:
    return vocabulary.compiler()


@cache
def _tokenizer() -> Any:
    return vocabulary.tokenizer()


def _as_written(schema: dict[str, Any]) -> Constraint:
    """The constraint of a schema that is not closed."""
    options = {"whitespace_flexible": False, "lenient": True, "coerce_one_of": True}
    matcher = LLMatcher(
        _tokenizer(), LLMatcher.grammar_from_json_schema(json.dumps({**schema, "x-guidance": options})), log_level=0
    )
    if matcher.is_error():
        raise ShapeError(matcher.get_error())
    return Constraint(matcher, vocabulary.SIZE, [_END])


def _as_closed(schema: dict[str, Any]) -> Constraint:
    return _compiler().compile(Shape("json_schema", json.dumps(schema)))


def _can_be_asked(schema: dict[str, Any]) -> bool:
    try:
        check(schema)
    except ShapeError:
        return False
    return True


def _answer(constraint: Constraint, seed: int) -> Any:
    """An answer of noise; None if it did not end. Raises ShapeError if there is none."""
    tokens = list(written(constraint, noise(seed, _CLOSING), 300, (_END,)))
    return json.loads(vocabulary.decode(tokens)) if tokens[-1] == _END else None


def _loses_nothing(schema: dict[str, Any], seed: int) -> None:
    try:
        answer = _answer(_as_written(schema), seed)
    except ShapeError:
        return  # there is none, closed or not
    if _can_be_asked(schema):
        _answer(_as_closed(schema), seed)  # which raises ShapeError if closing has lost them all
    narrower, wider = Draft202012Validator(closed(schema)), Draft202012Validator(schema)
    assert not narrower.is_valid(answer) or wider.is_valid(answer)


@given(_in_parts(), st.integers(0, 2**32))
@settings(max_examples=200)
def test_what_fits_the_closed_schema_fits_the_schema_and_there_is_such_an_answer(
    schema: dict[str, Any], seed: int
) -> None:
    _loses_nothing(schema, seed)


def _of_object(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "null"}}, "required": [name]}


def _list_of(schema: dict[str, Any], **defs: Any) -> dict[str, Any]:
    """The schema of an object with one list, which is not empty."""
    return {"properties": {"list": {**schema, "minItems": 1, "maxItems": 1}}, "required": ["list"], "$defs": defs}


@pytest.mark.parametrize(
    "schema",
    [
        {"required": ["x"], "anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"required": ["x"], "$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": {}}}}},
        {"properties": {"a": {}}, "const": {"b": 1}},
        {"properties": {"a": {}}, "enum": [{"b": 1}]},
        {"properties": {"a": {}}, "minProperties": 2},
        {"properties": {"a": False, "b": {"enum": []}}, "minProperties": 2},
        {"anyOf": [{"properties": {"a": {}}}], "oneOf": [{"type": "object", "required": ["z"]}]},
        {"properties": {"ab": _of_object("a")}, "patternProperties": {"^a": _of_object("b")}, "required": ["ab"]},
        _list_of({"type": "array", "items": _of_object("a"), "anyOf": [{"items": _of_object("b")}]}),
        _list_of({"type": "array", "items": _of_object("a"), "$ref": "#/$defs/b"}, b={"items": _of_object("b")}),
        _list_of({"type": "array", "prefixItems": [_of_object("a")], "oneOf": [{"prefixItems": [_of_object("b")]}]}),
    ],
)
def test_an_object_that_must_have_what_one_schema_does_not_name_stays_open(schema: dict[str, Any]) -> None:
    _loses_nothing({"type": "object", **schema}, seed=3)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@given(_all, st.integers(0, 2**32))
@_many
def test_closing_loses_nothing_of_thousands_of_schemas(schema: dict[str, Any], seed: int) -> None:
    _loses_nothing(schema, seed)


@given(_all)
@_few
def test_closing_twice_is_closing_once(schema: dict[str, Any]) -> None:
    assert closed(closed(schema)) == closed(schema)
