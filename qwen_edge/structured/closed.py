"""Closes the objects of a JSON schema. Pure.

By JSON Schema, an object may have more properties than the schema names. A small model that may go on with names of its
own does so, and does not end. So an object that names properties gets no others, unless the schema says more about
them. What fits the closed schema fits the schema, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_NESTED = ("items", "prefixItems", "anyOf", "oneOf", "additionalProperties")
_SAYS_MORE = ("additionalProperties", "patternProperties", "const", "enum")
# one schema in the place of several: each may require what another does not name
_WHOLE = ("anyOf", "oneOf", "$ref")
_OWN = ("properties", "patternProperties", "additionalProperties", "required", "minProperties", "const", "enum")


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with closed objects. Where several schemas describe one object together (allOf, or anyOf and $ref
    beside properties or other words of objects), it stays as it is: what one of them does not name, another may."""
    if any(_is_combined(one) for one in _nodes(schema)):
        return dict(schema)
    whole: dict[str, Any] = _closed(schema)
    return whole


def _is_combined(schema: Mapping[str, Any]) -> bool:
    parts = sum(key in schema for key in _WHOLE) + any(key in schema for key in _OWN)
    return "allOf" in schema or parts > 1


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    """All objects inside the schema, those that are no schemas among them."""
    if isinstance(value, Mapping):
        yield value
    for one in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _nodes(one)


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    inner = {key: _closed_inside(key, value) for key, value in schema.items()}
    names = schema.get("properties")
    if not isinstance(names, Mapping) or any(key in schema for key in _SAYS_MORE):
        return inner
    are_enough = set(schema.get("required", ())) <= names.keys() and schema.get("minProperties", 0) <= len(names)
    return {**inner, "additionalProperties": False} if are_enough else inner


def _closed_inside(key: str, value: Any) -> Any:
    if key in _NAMED and isinstance(value, Mapping):
        return {name: _closed(one) for name, one in value.items()}
    return _closed(value) if key in _NESTED else value
