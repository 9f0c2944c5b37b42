"""What is known of a JSON schema before it is compiled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher

from qwen_edge.structured import one_of
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.finite import MOST_REFERENCES
from qwen_edge.structured.schema import FORMATS, LARGEST, UNENFORCED, check
from qwen_edge.structured.walk import DEEPEST

_VALUES: dict[str, Any] = {
    "$dynamicAnchor": "a", "$dynamicRef": "#a", "$recursiveRef": "#", "dependencies": {}, "dependentRequired": {},
    "dependentSchemas": {}, "maxContains": 1, "minContains": 1, "uniqueItems": True, "unevaluatedItems": False,
    "unevaluatedProperties": False,
}  # fmt: skip
_ENFORCED = {
    "$anchor": "a", "$comment": "a", "$schema": "https://json-schema.org/draft/2020-12/schema", "const": 1,
    "default": 1, "deprecated": True, "description": "a", "enum": [1], "examples": [1], "exclusiveMaximum": 3,
    "exclusiveMinimum": 1, "items": {}, "maxItems": 2, "maxLength": 2, "maximum": 3, "minItems": 1, "minLength": 1,
    "minimum": 1, "multipleOf": 2, "pattern": "a", "patternProperties": {"^a": {}}, "prefixItems": [{}],
    "properties": {}, "readOnly": True, "required": ["a"], "title": "a", "type": "string", "writeOnly": True,
}  # fmt: skip


def _refused_by_llguidance(schema: dict[str, Any]) -> str:
    return str(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema)))


@pytest.mark.parametrize("keyword", sorted(UNENFORCED))
def test_a_keyword_that_is_listed_as_not_enforced_is_none_that_llguidance_knows(keyword: str) -> None:
    schema = {keyword: _VALUES.get(keyword, {})}
    assert "Unimplemented" in _refused_by_llguidance(schema)
    assert check({"properties": {"a/b": schema}}).keywords == (f"{keyword} (at /properties/a~1b)",)


@pytest.mark.parametrize("keyword", sorted(_ENFORCED))
def test_a_keyword_that_is_not_listed_is_one_that_llguidance_knows(keyword: str) -> None:
    schema = {keyword: _ENFORCED[keyword]}
    assert _refused_by_llguidance(schema) == ""
    assert check(schema) == ((), ())


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_listed_format_is_enforced(form: str) -> None:
    schema = {"type": "string", "format": form}
    assert _refused_by_llguidance(schema) == ""
    assert check(schema) == ((), ())


@pytest.mark.parametrize("form", ["int32", "float", "password", "regex", "json-pointer", "unheard-of"])
def test_another_format_is_named(form: str) -> None:
    schema = {"type": "string", "format": form}
    assert "Unknown format" in _refused_by_llguidance(schema)
    assert check(schema) == ((), (f"format {form} (at /)",))


@pytest.mark.parametrize("schema", [{"uniqueItems": False}, {"unevaluatedProperties": True}, {"unevaluatedItems": {}}])
def test_a_keyword_that_asks_for_nothing_is_not_named(schema: dict[str, Any]) -> None:
    assert check(schema) == ((), ())


@pytest.mark.parametrize(
    "schema",
    [
        {"const": 2**53 + 1},
        {"enum": ["a", {"b": [12345678901234567890]}]},
        {"type": "integer", "minimum": 2**53 + 1},
        {"type": "integer", "exclusiveMaximum": 2**63 - 2},
    ],
)
def test_a_number_that_double_precision_rounds_is_named(schema: dict[str, Any]) -> None:
    [named] = check(schema).keywords
    assert named.split()[0] in schema


@pytest.mark.parametrize("most", [2**53 - 1, 2**63 - 1, 2**64])
def test_the_bounds_of_machine_integers_are_enforced(most: int) -> None:
    assert check({"type": "integer", "minimum": -most, "maximum": most}) == ((), ())


def _defined(**definitions: Any) -> dict[str, Any]:
    return {"$ref": "#/$defs/a", "$defs": definitions}


_CAT = {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]}
_DOG = {"type": "object", "properties": {"kind": {"enum": ["dog", "hound"]}}, "required": ["kind"]}


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "string"}, {"type": "integer"}],
        [_CAT, _DOG],
        [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}, {"type": "null"}],
        [{"const": 1}, {"enum": [2, 3]}],
        [{"const": number} for number in range(700)],
        [{**_CAT, "properties": {"kind": {"const": str(number)}}} for number in range(400)],
    ],
)
def test_one_of_schemas_that_exclude_each_other_is_enforced(parts: list[Any]) -> None:
    assert check({"oneOf": parts, "$defs": {"cat": _CAT, "dog": _DOG}}).keywords == ()


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "number"}, {"type": "integer"}],
        [_CAT, {"type": "object"}],
        [_CAT, {**_DOG, "required": []}],
        [{"const": 1}, {"minimum": 0}],
        [{"const": {"a": [1]}}, {"const": {"a": [1.0]}}],
        [{"enum": [1, 2]}, {"enum": [3, 4]}, {"enum": [5, 2]}],
        [True, {"type": "string"}],
    ],
)
def test_one_of_schemas_that_may_overlap_is_named(parts: list[Any]) -> None:
    assert check({"oneOf": parts}).keywords == ("oneOf (at /)",)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"minProperties": 1}, True),
        ({"minProperties": 1, "required": ["a"]}, False),
        ({"maxProperties": 1}, False),
        ({"maxProperties": 0, "properties": {"a": {}}}, True),
        ({"maxProperties": 1, "properties": {"a": {}}}, True),
        ({"maxProperties": 1, "properties": {"a": {}}, "additionalProperties": False}, False),
    ],
)
def test_the_number_of_properties_is_named_where_it_may_be_miscounted(schema: dict[str, Any], named: bool) -> None:
    assert bool(check(schema).keywords) is named


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object"}, "# requires itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "#/$defs/a requires itself"),
        (_defined(a={"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/a"}}), "#/$defs/a requires itself"),
        (_defined(a={"anyOf": [{"$ref": "#/$defs/b"}]}, b={"$ref": "#/$defs/a"}), "requires itself"),
        ({"properties": {"a": {"$ref": "#/$defs/no"}}}, "#/$defs/no leads nowhere"),
        ({"$ref": "https://example.org/schema"}, "leads out of the schema"),
        ({"properties": {"a": {"$ref": "#x"}}, "$defs": {"x": {"$anchor": "x"}}}, "leads to an anchor"),
        ({"properties": {"a": {"multipleOf": 0}}}, "(at /properties/a)"),
        ({"multipleOf": -0.5}, "multipleOf: Expected"),
        ({"properties": {"a": 5}}, "(at /properties/a)"),
        ({"items": [{"type": "string"}]}, "listed in prefixItems (at /items)"),
        ({"properties": {"o": {"type": "object", "required": ["b"], "additionalProperties": False}},
          "type": "object", "required": ["o"]}, "b is required, and the schema forbids it (at /properties/o)"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "a is required, and the schema forbids it"),
        ({"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}, "enum is empty (at /properties/a)"),
        ({"type": "integer", "minimum": 5, "maximum": 1}, "no answer fits: minimum is above maximum"),
        ({"type": "array", "minItems": 1, "items": {"type": ["string"], "minLength": 2, "maxLength": 1}},
         "minLength is above maxLength (at /items)"),
        ({"$ref": "#/other/a~1b", "other": {"a/b": {"required": 5}}}, "(at /other/a~1b)"),
        ({"anyOf": {"type": "string"}}, "anyOf must be a list"),
        ({"properties": ["a"]}, "properties must be an object"),
    ],
)  # fmt: skip
def test_a_schema_that_no_answer_can_fit_is_refused_with_its_place(schema: dict[str, Any], where: str) -> None:
    with pytest.raises(ShapeError) as refused:
        check(schema)
    assert where in str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["integer", "null"], "minimum": 5, "maximum": 1},
        {"type": "object", "properties": {"a": {"enum": []}}},
        {"anyOf": [{"type": "null"}, {"type": "string", "minLength": 2, "maxLength": 1}]},
    ],
)
def test_bounds_that_no_value_fits_do_no_harm_where_another_value_will_do(schema: dict[str, Any]) -> None:
    assert check(schema).keywords == ()


def test_a_required_property_that_a_pattern_names_is_not_forbidden() -> None:
    patterns = {"^s[0-9]$": {"type": "integer"}}
    schema = {"type": "object", "patternProperties": patterns, "required": ["s1"], "additionalProperties": False}
    assert check(schema).keywords == ()


def test_a_list_that_may_end_is_no_endless_one() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    }
    assert check(node) == ((), ())


def test_a_required_property_may_be_one_that_only_a_pattern_describes() -> None:
    schema = {"patternProperties": {"^a": {}}, "additionalProperties": False, "required": ["ab"]}
    assert check({"type": "object", **schema}) == ((), ())


def test_a_schema_that_is_too_large_or_too_deep_is_refused() -> None:
    with pytest.raises(ShapeError, match=str(LARGEST)):
        check({"enum": ["x" * LARGEST]})
    deep: dict[str, Any] = {}
    for _ in range(DEEPEST + 1):
        deep = {"items": deep, "prefixItems": [deep]} if not deep else {"properties": {"a": deep}}
    with pytest.raises(ShapeError, match=str(DEEPEST)):
        check(deep)


def test_a_schema_as_deep_as_python_can_read_is_refused_and_does_no_harm() -> None:
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"items": deep}
    with pytest.raises(ShapeError, match="deep"):
        check(json.loads(json.dumps(deep)))


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {f"k{number}": {} for number in range(3000)}},
        {"required": [f"k{number}" for number in range(3000)]},
        {"anyOf": [{"type": "number", "minimum": number} for number in range(300)]},
        {"patternProperties": {f"^a{number}.*b$": {} for number in range(400)}},
        {"anyOf": [{"multipleOf": 9000 + number} for number in range(10)]},
    ],
)
def test_a_schema_that_takes_long_to_compile_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ShapeError, match="too much work"):
        check(schema)


def test_many_schemas_of_one_of_are_not_compared_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of 700 schemas held up the whole daemon for seconds."""
    pairs: list[Any] = []
    monkeypatch.setattr(one_of, "_is_apart", lambda one, other, _: pairs.append(one) or True)
    assert check({"oneOf": [{"minimum": 0}] * 65}).keywords == ("oneOf (at /)",)
    assert not pairs
    check({"oneOf": [{"minimum": 0}, {"type": "string"}]})
    assert len(pairs) == 1


def _patterned(*words: str) -> list[dict[str, Any]]:
    return [{"type": "string", "pattern": f"a.*{word}"} for word in words]


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BY_LETTER = {letter: _patterned(letter)[0] for letter in _LETTERS}


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": _patterned(*_LETTERS)},
        {"allOf": [{"properties": {"a": one}} for one in _patterned(*_LETTERS)]},
        {"allOf": [{"items": {"additionalProperties": one}} for one in _patterned(*_LETTERS)]},
        {"allOf": [{"oneOf": [one, {"type": "integer"}]} for one in _patterned(*_LETTERS)]},
        {"allOf": [{"$ref": f"#/$defs/{one}"} for one in _LETTERS], "$defs": _BY_LETTER},
        {"$ref": "#/$defs/0", "$defs": {
            str(number): {"pattern": f"a.*{letter}", **({"$ref": f"#/$defs/{number + 1}"} if letter != "z" else {})}
            for number, letter in enumerate(_LETTERS)
        }},
        {"allOf": [{"format": "email", "minLength": 1, "pattern": "a"}, {"allOf": _patterned(*_LETTERS[:10])}]},
    ],
)  # fmt: skip
def test_many_patterns_for_one_text_whose_search_takes_all_memory_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ShapeError, match="are joined"):
        check(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": _BY_LETTER, "allOf": [{}]},
        {"anyOf": _patterned(*_LETTERS), "minLength": 3},
        {"allOf": _patterned("x", "y", "z")},
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"type": "string", "format": "date"}}},
    ],
)
def test_many_patterns_for_different_texts_are_kept(schema: dict[str, Any]) -> None:
    check(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 86_400},
        {"type": "number", "multipleOf": 0.00099991},
        {"type": "number", "multipleOf": 1e300},
        {"type": "integer", "allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]},
        {"$ref": "#/$defs/a", "multipleOf": 997, "$defs": {"a": {"type": "integer", "multipleOf": 991}}},
        {"anyOf": [{"multipleOf": 997}], "multipleOf": 991},
        {"properties": {"ab": {"multipleOf": 9973}}, "patternProperties": {"^a": {"multipleOf": 9967}}},
        {"items": {"multipleOf": 997}, "oneOf": [{"items": {"multipleOf": 991}}]},
    ],
)
def test_multiples_of_large_numbers_which_take_for_ever_are_refused_also_where_schemas_make_them(
    schema: dict[str, Any],
) -> None:
    with pytest.raises(ShapeError, match="multipleOf"):
        check(schema)


def test_multiples_of_usual_numbers_are_kept_however_many_there_are() -> None:
    steps = (5, 0.25, 60, 100, 0.01, 1000)
    check({"properties": {str(step): {"type": "number", "multipleOf": step} for step in steps}})


def test_a_long_chain_of_references_which_would_exhaust_the_stack_is_refused() -> None:
    chain = {f"a{number}": {"items": {"$ref": f"#/$defs/a{number + 1}"}} for number in range(MOST_REFERENCES)}
    with pytest.raises(ShapeError, match="references"):
        check({"$ref": "#/$defs/a0", "$defs": {**chain, f"a{MOST_REFERENCES}": {}}})
