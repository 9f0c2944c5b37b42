"""Tells whether the schemas of a `oneOf` exclude each other: only then an answer that fits one of them fits no other.
Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from qwen_edge.structured.keywords import types_of
from qwen_edge.structured.walk import resolve


def are_apart(schemas: Sequence[Any], root: Mapping[str, Any]) -> bool:
    """Whether no value fits two of the schemas, as far as types and constant properties tell."""
    whole = [resolve(one, root) for one in schemas]
    return all(_is_apart(one, other, root) for one, other in combinations(whole, 2))


def _is_apart(one: Any, other: Any, root: Mapping[str, Any]) -> bool:
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return one is False or other is False
    if not types_of(one) & types_of(other):
        return True
    values = [_values(schema) for schema in (one, other)]
    if values[0] is not None and values[1] is not None:
        return not any(value in values[1] for value in values[0])
    shared = set(one.get("required", ())) & set(other.get("required", ()))
    pairs = [
        [resolve(schema.get("properties", {}).get(name, True), root) for schema in (one, other)] for name in shared
    ]
    objects = types_of(one) == types_of(other) == {"object"}
    return objects and any(_is_apart_value(*pair) for pair in pairs)


def _is_apart_value(one: Any, other: Any) -> bool:
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return False
    first, second = _values(one), _values(other)
    return first is not None and second is not None and not any(value in second for value in first)


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    """All values that fit, if they are listed."""
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) else None
