"""Closes the objects of a JSON schema. Pure.

By JSON Schema, an object may have more properties than the schema names. A small model that may go on with names of its
own does so, and does not end. So an object that names properties gets no others, unless the schema says more about
them. What fits the closed schema fits the schema, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qwen_edge.structured.walk import is_combined

# Where closed schemas let less through. Inside `not`, for example, they would let more through.
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_NESTED = ("items", "prefixItems", "anyOf", "oneOf", "additionalProperties")
# what says itself which properties an object may have
_SAYS_MORE = ("additionalProperties", "patternProperties", "const", "enum")


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with closed objects. A schema that combines others anywhere (`is_combined`) stays as it is: what one
    of two schemas for an object does not name, the other may require."""
    if any(is_combined(one) for one in _nodes(schema)):
        return dict(schema)
    whole: dict[str, Any] = _closed(schema)
    return whole


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
    required = set(schema.get("required", ()))
    # a property that is not required may be one for which no value fits
    are_enough = required <= names.keys() and schema.get("minProperties", 0) <= len(required)
    return {**inner, "additionalProperties": False} if are_enough else inner


def _closed_inside(key: str, value: Any) -> Any:
    if key in _NAMED and isinstance(value, Mapping):
        return {name: _closed(one) for name, one in value.items()}
    return _closed(value) if key in _NESTED else value
