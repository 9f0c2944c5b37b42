"""The values that JSON Schema's keywords take: their types, patterns that can be kept, and what a schema allows. Pure.

Reference: https://json-schema.org/draft/2020-12/json-schema-validation. Keywords whose values are schemas are checked
where schemas are walked through (`schema.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Number = int | float
_Positive = Annotated[int, msgspec.Meta(gt=0)] | Annotated[float, msgspec.Meta(gt=0)]
_Type = Literal["array", "boolean", "integer", "null", "number", "object", "string"]


class _Keywords(msgspec.Struct):
    """Only the keywords that this program or llguidance reads."""

    type: _Type | list[_Type] | msgspec.UnsetType = msgspec.UNSET
    enum: list[Any] | msgspec.UnsetType = msgspec.UNSET
    required: list[str] | msgspec.UnsetType = msgspec.UNSET
    format: str | msgspec.UnsetType = msgspec.UNSET
    pattern: str | msgspec.UnsetType = msgspec.UNSET
    ref: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="$ref")
    minimum: _Number | msgspec.UnsetType = msgspec.UNSET
    maximum: _Number | msgspec.UnsetType = msgspec.UNSET
    exclusiveMinimum: _Number | msgspec.UnsetType = msgspec.UNSET  # noqa: N815, as JSON Schema spells it
    exclusiveMaximum: _Number | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    multipleOf: _Positive | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    minLength: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    maxLength: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    minItems: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    maxItems: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    minProperties: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    maxProperties: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815


# an escape; a character class, where the rest means nothing; the beginning of a look-around; a bracket
_TOKEN = re.compile(r"\\(?P<escape>.)|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<look>\(\?<?[=!])|(?P<bracket>[(\[)])", re.DOTALL)


def pattern_complaint(pattern: str) -> str:
    """What of a regular expression cannot be kept, of what other dialects than Rust's know, or which bracket has no
    partner; empty if nothing is wrong. The engine's compiler finds what this function does not know."""
    depth = 0
    for match in _TOKEN.finditer(pattern):
        if match["look"]:
            return f"look-around, as in {match['look']}...), cannot be kept"
        if (escape := match["escape"]) and (escape.isdecimal() or escape == "k"):
            return f"back references, such as \\{escape}, cannot be kept"
        if escape and escape in "bB":
            return f"word boundaries (\\{escape}) cannot be kept"
        if match["bracket"] == "[":
            return "a character class is not closed"
        depth += (match["bracket"] == "(") - (match["bracket"] == ")")
        if depth < 0:
            return "a closing parenthesis has no partner"
    return "a group is not closed" if depth else ""


def complaint(schema: Mapping[str, Any]) -> str:
    """What is wrong with a keyword of this schema, as "minItems: Expected int, got str"; empty if nothing is."""
    return _wrong_type(schema) or _wrong_pattern(schema)


def _wrong_type(schema: Mapping[str, Any]) -> str:
    try:
        msgspec.convert(dict(schema), _Keywords)
    except msgspec.ValidationError as error:
        what, _, where = str(error).replace("`", "").partition(" - at $.")
        if what.startswith("Invalid enum value"):
            what += f"; the types are {', '.join(get_args(_Type))}"
        return f"{where}: {what}" if where else what
    return ""


def _wrong_pattern(schema: Mapping[str, Any]) -> str:
    """Where no text fits, the pattern does not matter."""
    if "string" in schema.get("type", "string") and (wrong := pattern_complaint(schema.get("pattern", ""))):
        return f"pattern: {wrong}"
    named = schema.get("patternProperties")
    for pattern in named if isinstance(named, Mapping) else ():
        if wrong := pattern_complaint(pattern):
            return f"patternProperties: {wrong}"
    return ""


_BOUNDS = (
    ("minLength", "maxLength", {"string"}),
    ("minItems", "maxItems", {"array"}),
    ("minProperties", "maxProperties", {"object"}),
    ("minimum", "maximum", {"number", "integer"}),
)


def nothing_fits(schema: Mapping[str, Any]) -> str:
    """Why no value fits, as far as enum and bounds tell; empty if they do not. The keywords have the right types."""
    if schema.get("enum") == []:
        return "enum is empty"
    named = schema.get("type", ())
    types = {named} if isinstance(named, str) else {*named}
    for least, most, kinds in _BOUNDS:
        if types and types <= kinds and least in schema and most in schema and schema[least] > schema[most]:
            return f"{least} is above {most}"
    return ""


_ALL_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


def types_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types of the values that fit; a number may be an integer."""
    named = schema.get("type", _ALL_TYPES)
    types = frozenset([named] if isinstance(named, str) else named)
    return types | {"integer"} if "number" in types else types
