"""Schemas of older drafts are held to as well: what they say is said in the words of 2020-12."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft202012Validator

from qwen_edge.structured.drafts import current
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.schema import check
from tests.unit.structured.schemas import schemas

_INTEGER: dict[str, Any] = {"type": "integer"}
_TEXT: dict[str, Any] = {"type": "string"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"items": [_INTEGER]}, {"prefixItems": [_INTEGER]}),
        ({"items": [_INTEGER], "additionalItems": False}, {"prefixItems": [_INTEGER], "items": False}),
        ({"items": [_INTEGER], "additionalItems": _TEXT}, {"prefixItems": [_INTEGER], "items": _TEXT}),
        ({"items": [{"items": [_TEXT]}]}, {"prefixItems": [{"prefixItems": [_TEXT]}]}),
        ({"minimum": 3, "exclusiveMinimum": True}, {"exclusiveMinimum": 3}),
        ({"minimum": 3, "exclusiveMinimum": False}, {"minimum": 3}),
        ({"maximum": 3, "exclusiveMaximum": True}, {"exclusiveMaximum": 3}),
        ({"exclusiveMaximum": True}, {}),
        *(({key: {"items": [_TEXT]}}, {key: {"prefixItems": [_TEXT]}}) for key in ("items", "additionalProperties")),
        *(({key: [{"items": [_TEXT]}]}, {key: [{"prefixItems": [_TEXT]}]}) for key in ("anyOf", "allOf", "oneOf")),
        *(({key: {"a": {"items": [_TEXT]}}}, {key: {"a": {"prefixItems": [_TEXT]}}})
          for key in ("properties", "$defs", "definitions", "patternProperties")),
    ],
)  # fmt: skip
def test_older_words_are_said_in_those_of_2020_12(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert current(old) == new


@pytest.mark.parametrize(
    "schema",
    [
        {"const": {"items": [1]}},
        {"enum": [{"exclusiveMinimum": True}]},
        {"properties": {"items": {"default": {"items": []}}}},
        {"items": [1], "prefixItems": [_TEXT]},
        {"exclusiveMinimum": 3},
    ],
)
def test_values_and_mistakes_stay_as_they_are(schema: dict[str, Any]) -> None:
    assert current(schema) == schema


@given(schemas())
def test_a_schema_of_2020_12_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert current(schema) == schema


_VALUES = st.lists(st.one_of(st.integers(0, 4), st.text(max_size=1)), max_size=3) | st.integers(0, 4)
_OLD = st.fixed_dictionaries(
    {},
    optional={
        "items": st.lists(st.sampled_from([_INTEGER, _TEXT, {"maximum": 2, "exclusiveMaximum": True}]), min_size=1),
        "additionalItems": st.sampled_from([True, False, _TEXT]),
        "minimum": st.integers(0, 4),
        "exclusiveMinimum": st.booleans(),
    },
).filter(lambda schema: "minimum" in schema or "exclusiveMinimum" not in schema)


@given(_OLD, _VALUES)
def test_the_same_values_fit_before_and_after(schema: dict[str, Any], value: Any) -> None:
    fits = Draft4Validator(schema).is_valid(value)
    assert Draft202012Validator(current(schema)).is_valid(value) is fits


def test_a_schema_that_is_nested_too_deeply_is_refused_as_before() -> None:
    inner: dict[str, Any] = {"items": [_TEXT]}
    deep = reduce(lambda inside, _: {"items": [inside]}, range(200), inner)
    with pytest.raises(ShapeError):
        check(current(deep))
