"""Walks through a JSON schema: the schemas inside it, what references lead to, which schemas are combined. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwen_edge.structured.errors import Path, ShapeError

DEEPEST = 60  # schemas inside schemas; llguidance reads JSON that is nested 127 deep

# where schemas stand inside a schema
ONE = ("additionalProperties", "items", "not", "if", "then", "else", "contains", "propertyNames")
SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems")
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")

# words that apply other schemas to the same value, and words with which a schema itself describes the value
_IN_PLACE = ("anyOf", "oneOf", "$ref")
_OF_ITS_OWN = (
    "additionalProperties", "const", "enum", "items", "minProperties", "multipleOf", "patternProperties", "prefixItems",
    "properties", "required",
)  # fmt: skip


def is_combined(schema: Mapping[str, Any]) -> bool:
    """Whether several schemas describe one value together, or a part of the value: the schemas of allOf; those of two
    of anyOf, oneOf and $ref; those of one of them and the schema itself; or those of a property and of a pattern that
    its name may match."""
    parts = sum(key in schema for key in _IN_PLACE) + any(key in schema for key in _OF_ITS_OWN)
    return "allOf" in schema or parts > 1 or {"properties", "patternProperties"} <= schema.keys()


def reached(root: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """All schemas inside the schema, with those that a `$ref` leads to at any other place in it. Raises ShapeError."""
    seen, waiting = set[int](), list[tuple[Path, Any]]([((), root)])
    while waiting:
        start, schema = waiting.pop()
        for path, one in _schemas(schema, start):
            if id(one) in seen:
                continue
            seen.add(id(one))
            yield path, one
            if isinstance(ref := one.get("$ref"), str) and id(target := target_of(root, ref)) not in seen:
                waiting.append((_path_of(ref), target))


def _schemas(schema: Any, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The schema and all schemas inside it, with their places."""
    if len(path) > 2 * DEEPEST:
        raise ShapeError(f"schemas are nested more than {DEEPEST} deep", path[:6])
    if not isinstance(schema, Mapping):
        if isinstance(schema, list) and path[-1:] == ("items",):  # as in drafts before 2020-12
            raise ShapeError("items must be one schema; schemas for the first items are listed in prefixItems", path)
        if not isinstance(schema, bool):
            raise ShapeError("a schema must be an object, true or false", path)
        return
    yield path, schema
    for name in ONE:
        if name in schema:
            yield from _schemas(schema[name], (*path, name))
    for name in SEVERAL:
        if not isinstance(parts := schema.get(name, []), Sequence) or isinstance(parts, str):
            raise ShapeError(f"{name} must be a list of schemas", path)
        for number, part in enumerate(parts):
            yield from _schemas(part, (*path, name, number))
    for name in NAMED:
        if not isinstance(parts := schema.get(name, {}), Mapping):
            raise ShapeError(f"{name} must be an object whose values are schemas", path)
        for key, part in parts.items():
            yield from _schemas(part, (*path, name, key))


def _path_of(ref: str) -> tuple[str, ...]:
    """The place that a local reference names."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in ref[1:].split("/")[1:])


def resolve(schema: Any, root: Mapping[str, Any]) -> Any:
    """The schema that a local `$ref` leads to, through at most DEEPEST others; the schema itself if it has none."""
    for _ in range(DEEPEST):
        if not isinstance(schema, Mapping) or not isinstance(ref := schema.get("$ref"), str):
            return schema
        schema = target_of(root, ref)
    return schema


def target_of(root: Any, ref: str) -> Any:
    """What a reference such as #/$defs/room stands for. Raises ShapeError."""
    found = root
    if ref != "#" and not ref.startswith("#/"):
        where = "to an anchor" if ref.startswith("#") else "out of the schema"
        raise ShapeError(f"$ref: {ref} leads {where}; only references that begin with #/ are followed")
    for part in _path_of(ref):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise ShapeError(f"$ref: {ref} leads nowhere")
    return found
