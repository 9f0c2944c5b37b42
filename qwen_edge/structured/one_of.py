"""Whether no value fits two of the schemas in a `oneOf`, as far as types and constant properties tell. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

from qwen_edge.structured.keywords import types_of

Resolve = Callable[[Any], Any]
"""Follows the `$ref` of a schema."""

_MOST_COMPARED = 64  # schemas that are compared with one another: 2,000 pairs, some 10 ms


def are_apart(schemas: Sequence[Any], resolve: Resolve) -> bool:
    """False if it cannot be told, or not in a few milliseconds."""
    whole = [resolve(one) for one in schemas]
    if len(whole) > 1 and (_list_others(whole) or _are_tagged(whole, resolve)):
        return True
    if len(whole) > _MOST_COMPARED:
        return False
    return all(_is_apart(one, other, resolve) for one, other in combinations(whole, 2))


def _are_tagged(schemas: Sequence[Any], resolve: Resolve) -> bool:
    """Whether all are of objects that a property, required by all, tells apart."""
    if not all(isinstance(one, Mapping) and types_of(one) == {"object"} for one in schemas):
        return False
    names = set[str].intersection(*(set(one.get("required", ())) for one in schemas))
    return any(_list_others([resolve(one.get("properties", {}).get(name, True)) for one in schemas]) for name in names)


def _is_apart(one: Any, other: Any, resolve: Resolve) -> bool:
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return one is False or other is False
    return not types_of(one) & types_of(other) or _list_others([one, other]) or _are_tagged([one, other], resolve)


def _list_others(schemas: Sequence[Any]) -> bool:
    """Whether each schema lists its values, and none lists a value of another."""
    listed = [_values(one) for one in schemas]
    found = set[Hashable]()
    for values in listed:
        if values is None or found & values:
            return False
        found |= values
    return True


def _values(schema: Any) -> frozenset[Hashable] | None:
    """All values that fit, if they are listed."""
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return frozenset([_hashable(schema["const"])])
    listed = schema.get("enum")
    return frozenset(map(_hashable, listed)) if isinstance(listed, list) else None


def _hashable(value: Any) -> Hashable:
    """Equal for equal values of JSON (1 and 1.0), and for some others (1 and true): those count as not apart."""
    if isinstance(value, Mapping):
        return frozenset((name, _hashable(one)) for name, one in value.items())
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    plain: Hashable = value
    return plain
