"""A schema whose keywords have values of the wrong type is told, and is no fault of ours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher

from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.schema import check

_WRONG: list[tuple[dict[str, Any], str]] = [
    ({"type": "strng"}, "type: Invalid enum value 'strng'"),
    ({"type": 5}, "type: Expected "),
    ({"type": None}, "type: Expected "),
    ({"type": [["object"]]}, "type[0]: Expected "),
    ({"required": 5}, "required: Expected array, got int"),
    ({"required": None}, "required: Expected array, got null"),
    ({"required": [1]}, "required[0]: Expected str, got int"),
    ({"enum": "on"}, "enum: Expected array, got str"),
    ({"format": ["date"]}, "format: Expected str, got array"),
    ({"pattern": 1}, "pattern: Expected str, got int"),
    ({"$ref": 5}, "$ref: Expected str, got int"),
    ({"minimum": "1"}, "minimum: Expected "),
    ({"exclusiveMinimum": True}, "exclusiveMinimum: Expected "),
    ({"minItems": "2"}, "minItems: Expected int, got str"),
    ({"minLength": -1}, "minLength: Expected int >= 0"),
    ({"maxItems": 1.5}, "maxItems: Expected int, got float"),
    ({"maxProperties": {}}, "maxProperties: Expected int, got object"),
]


@pytest.mark.parametrize(("wrong", "words"), _WRONG, ids=lambda value: str(value)[:40])
def test_a_value_of_the_wrong_type_is_told_with_its_place(wrong: dict[str, Any], words: str) -> None:
    for schema, place in [
        (wrong, ""),
        ({"type": "object", "properties": {"a": wrong}}, " (at /properties/a)"),
        ({"oneOf": [{"type": "string"}, wrong]}, " (at /oneOf/1)"),
        ({"$ref": "#/components/a", "components": {"a": wrong}}, " (at /components/a)"),
    ]:
        with pytest.raises(ShapeError) as error:
            check(schema)
        assert str(error.value).startswith(words)
        assert str(error.value).endswith(place)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(?=a)b", "look-around, as in (?=...)"),
        ("^(?!a)b", "look-around, as in (?!...)"),
        ("(?<=a)b", "look-around, as in (?<=...)"),
        ("(?<!a)b", "look-around, as in (?<!...)"),
        (r"(a)\1", r"back references, such as \1"),
        (r"(?<n>a)\k<n>", r"back references, such as \k"),
        (r"\bon\b", r"word boundaries (\b)"),
        (r"on\B", r"word boundaries (\B)"),
        ("(on|off", "a group is not closed"),
        ("on)", "a closing parenthesis has no partner"),
        ("x[0-9", "a character class is not closed"),
    ],
)
def test_a_pattern_that_cannot_be_kept_is_told_with_its_place(pattern: str, words: str) -> None:
    assert LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(pattern))  # the list is about its refusals
    for schema, place in [
        (
            {"type": "object", "properties": {"a": {"type": ["string", "null"], "pattern": pattern}}},
            "(at /properties/a)",
        ),
        ({"items": {"patternProperties": {pattern: True}}}, "(at /items)"),
    ]:
        with pytest.raises(ShapeError) as error:
            check(schema)
        assert words in str(error.value)
        assert str(error.value).endswith(place)


@pytest.mark.parametrize(
    "pattern", [r"[(?=]a", r"\(?=a", r"\\1", "(?:a|b)", "(?<n>a)", "(?i)a", r"\d+[^\]]", "[]b]+", "^a$", r"[a[(]]\)"]
)
def test_a_pattern_that_can_be_kept_is_taken(pattern: str) -> None:
    assert not LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(pattern))
    check({"type": "string", "pattern": pattern})


def test_a_pattern_where_no_text_fits_does_not_matter() -> None:
    check({"type": "integer", "pattern": "(?=a)"})


def test_a_wrong_type_comes_with_the_types_that_there_are() -> None:
    with pytest.raises(ShapeError, match="'int'; the types are array, boolean, integer"):
        check({"type": "int"})


def test_a_keyword_that_is_not_enforced_is_found_wherever_a_reference_leads() -> None:
    schema = {"$ref": "#/components/a", "components": {"a": {"$ref": "#/components/b"}, "b": {"not": {}}}}
    assert check(schema).keywords == ("not (at /components/b)",)


_NAMES = (
    "type", "required", "enum", "const", "properties", "items", "prefixItems", "anyOf", "oneOf", "allOf", "$ref",
    "$defs", "minItems", "maxItems", "minProperties", "maxProperties", "additionalProperties", "patternProperties",
    "format", "pattern", "minimum", "not", "if", "uniqueItems", "unevaluatedItems",
)  # fmt: skip
_SCALAR = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.sampled_from(["object", "#", "#/a", ""])
)
_ANY = st.recursive(
    _SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(_NAMES), _ANY, max_size=5))
def test_whatever_a_client_sends_as_a_schema_is_checked_or_told(schema: dict[str, Any]) -> None:
    try:
        check(schema)
    except ShapeError as error:
        assert str(error)
