"""Random JSON schemas that some finite value satisfies, most of the time."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_NAMES = st.sampled_from(["a", "b", "on", "name", "über", 'q"t', "with space", "", "\\"])
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
_PATTERNS = st.sampled_from(
    ["^[a-z]+$", "b+", "^(on|off)$", "^\\d{1,3}%$", "^.{0,4}$", "[^x]$", "^\\w+@x\\.org$", "ü|ö"]
)
_FORMATS = st.sampled_from(["date", "date-time", "time", "email", "ipv4", "ipv6", "uuid", "hostname", "duration"])
_CONSTANTS = st.one_of(
    _TEXTS, st.integers(-1000, 1000), st.booleans(), st.none(), st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
)


def _between(low: st.SearchStrategy[Any], names: tuple[str, str]) -> st.SearchStrategy[dict[str, Any]]:
    def bounds(pair: tuple[Any, Any], which: int) -> dict[str, Any]:
        least, most = sorted(pair)
        return {key: value for key, value, bit in zip(names, (least, most), (1, 2), strict=True) if which & bit}

    return st.builds(bounds, st.tuples(low, low), st.integers(0, 3))


_STRINGS = st.one_of(
    _between(st.integers(0, 8), ("minLength", "maxLength")),
    st.builds(lambda pattern: {"pattern": pattern}, _PATTERNS),
    st.builds(lambda form: {"format": form}, _FORMATS),
).map(lambda more: {"type": "string", **more})
_INTEGERS = st.one_of(
    _between(st.integers(-2000, 2000), ("minimum", "maximum")),
    st.builds(lambda one: {"multipleOf": one}, st.integers(1, 12)),
    st.builds(lambda one: {"exclusiveMinimum": one, "exclusiveMaximum": one + 5}, st.integers(-10, 10)),
).map(lambda more: {"type": "integer", **more})
_NUMBERS = _between(st.floats(-100, 100).map(lambda x: round(x, 2)), ("minimum", "maximum")).map(
    lambda more: {"type": "number", **more}
)
_LEAVES = st.one_of(
    _STRINGS,
    _INTEGERS,
    _NUMBERS,
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(lambda values: {"enum": values}, st.lists(_CONSTANTS, min_size=1, max_size=4)),
    st.builds(
        lambda value: {"const": value},
        st.one_of(_CONSTANTS, st.lists(_CONSTANTS, max_size=2), st.dictionaries(_NAMES, _CONSTANTS, max_size=2)),
    ),
    st.builds(
        lambda kinds: {"type": kinds},
        st.lists(st.sampled_from(["string", "integer", "boolean", "null"]), min_size=1, max_size=3, unique=True),
    ),
)


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(_NAMES, inner, max_size=4))
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if properties:
        schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True, max_size=4))
    others = draw(st.sampled_from(["none", "free", "typed", "patterned", "unsaid"]))
    if others == "none":
        schema["additionalProperties"] = False
    elif others == "typed":
        schema["additionalProperties"] = draw(inner)
    elif others == "patterned":
        schema["patternProperties"] = {"^x": draw(inner)}
        schema["additionalProperties"] = False
    if draw(st.booleans()):
        schema["maxProperties"] = draw(st.integers(len(schema.get("required", ())), 6))
    return schema


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array", "items": draw(inner)}
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=3))
    least = draw(st.integers(0, 3))
    return {**schema, "minItems": least, "maxItems": least + draw(st.integers(0, 4))}


def _inside(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        _objects(inner),
        _arrays(inner),
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"allOf": [part]}, inner),
        st.builds(lambda part: {"anyOf": [part, {"type": "null"}]}, inner),
    )


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    """A schema, some of them with a definition that refers to itself."""
    schema: dict[str, Any] = draw(st.recursive(_LEAVES, _inside, max_leaves=8))
    if draw(st.integers(0, 4)):
        return schema
    node = {
        "type": "object",
        "properties": {"value": schema, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["value", "next"],
        "additionalProperties": False,
    }
    return {"$ref": "#/$defs/node", "$defs": {"node": node}}
