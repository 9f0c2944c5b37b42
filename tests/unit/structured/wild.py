"""JSON schemas as people write them by accident: keywords beside others that contradict them, of types that do not fit,
references everywhere. After the ideas of hypothesis-jsonschema, which tests itself with such schemas."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.unit.structured.schemas import schemas

_NAMES = st.sampled_from(["a", "b", "c", "x1", "über", 'q"t'])
_TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"]
_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-20, 20),
        st.sampled_from([0.5, -1.25, 1e3, 2.0, 1e-3, 12345678901234567890]),
        st.text('ab"\\ü\n/😀', max_size=3),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_NAMES, inner, max_size=2)),
    max_leaves=4,
)
_NUMBERS = st.one_of(
    st.integers(-12, 12),
    st.sampled_from([0.5, -0.5, 1.5, 2.25, -7.75, 1e6]),
    st.sampled_from([2**53 - 1, 2**53 + 1, 2**53 + 3, 2**63 - 1, 2**64, -(2**63), -(2**53) - 3]),
)
_SIZES = st.integers(0, 4)
_REFS = st.sampled_from(["#/$defs/one", "#/$defs/two"])


def _keywords(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    part = st.one_of(inner, st.booleans())
    parts = st.lists(inner, min_size=1, max_size=3)
    return {
        "type": st.one_of(st.sampled_from(_TYPES), st.lists(st.sampled_from(_TYPES), min_size=1, unique=True)),
        "enum": st.lists(_VALUES, min_size=1, max_size=4),
        "const": _VALUES,
        "minimum": _NUMBERS,
        "maximum": _NUMBERS,
        "exclusiveMinimum": _NUMBERS,
        "exclusiveMaximum": _NUMBERS,
        "multipleOf": st.sampled_from([1, 2, 3, 7, 0.5, 0.25, 0.1, 0.01, 1.5]),
        "minLength": _SIZES,
        "maxLength": _SIZES,
        "pattern": st.sampled_from(["a", "^a", "b$", "^[a-c]*$", "^a{2,3}$", "^$", "\\s", "[^a]", "^(a|bc)+$", "\\."]),
        "format": st.sampled_from(
            ["date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid", "unknown"]
        ),
        "properties": st.dictionaries(_NAMES, part, max_size=3),
        "required": st.lists(_NAMES, max_size=3, unique=True),
        "additionalProperties": part,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b", "^x\\d$"]), part, min_size=1, max_size=2),
        "minProperties": _SIZES,
        "maxProperties": _SIZES,
        "items": part,
        "prefixItems": st.lists(part, min_size=1, max_size=3),
        "minItems": _SIZES,
        "maxItems": _SIZES,
        "allOf": parts,
        "anyOf": parts,
        "oneOf": parts,
        "$ref": _REFS,
        "title": st.just("a title"),
        "description": st.just("what it is"),
        "default": _VALUES,
        "examples": st.lists(_VALUES, max_size=2),
        "deprecated": st.booleans(),
    }


# keywords that say something together
_FAMILIES = [
    ["type", "minimum", "maximum", "multipleOf", "exclusiveMinimum", "exclusiveMaximum"],
    ["type", "minLength", "maxLength", "pattern", "format"],
    ["properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"],
    ["items", "prefixItems", "minItems", "maxItems", "type"],
    ["allOf", "anyOf", "oneOf", "$ref", "properties", "required", "type"],
    ["enum", "const", "type", "properties", "required"],
]


@st.composite
def _mixed(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    known = _keywords(inner)
    family = draw(st.sampled_from([*_FAMILIES, list(known)]))
    names = draw(st.lists(st.sampled_from(family), max_size=4, unique=True))
    return {name: draw(known[name]) for name in names}


_WILD = st.recursive(
    _mixed(st.sampled_from([{}, {"type": "integer"}, {"type": "string"}, {"$ref": "#/$defs/two"}])), _mixed
)


@st.composite
def wild_schemas(draw: st.DrawFn) -> dict[str, Any]:
    """A schema of any keywords, with two definitions that any of them may refer to."""
    schema = draw(st.one_of(_WILD, schemas()))
    return {**schema, "$defs": {"one": draw(_WILD), "two": draw(_WILD), **schema.get("$defs", {})}}
