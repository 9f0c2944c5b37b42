"""Rewrites what older drafts of JSON Schema say in other words than 2020-12, which is what is enforced. Pure.

Clients of llama-server and generators of schemas still write these: a list of schemas as `items` (until 2019-09), and
`exclusiveMinimum` and `exclusiveMaximum` as booleans (draft 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_edge.structured.walk import DEEPEST, NAMED, ONE, SEVERAL

_BOUNDS = (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum"))


def current(schema: Any, depth: int = 0) -> Any:
    """The schema in the words of 2020-12. What is no schema, and what is nested too deeply, stays as it is: `check`
    refuses both."""
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return schema
    return {key: _inside(key, value, depth + 1) for key, value in _bounds(_tuple(schema)).items()}


def _inside(key: str, value: Any, depth: int) -> Any:
    if key in ONE:
        return current(value, depth)
    if key in SEVERAL and isinstance(value, list):
        return [current(one, depth) for one in value]
    if key in NAMED and isinstance(value, Mapping):
        return {name: current(one, depth) for name, one in value.items()}
    return value


def _tuple(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A list of schemas for the first items is `prefixItems`; `additionalItems` is about the rest."""
    if not isinstance(schema.get("items"), list) or "prefixItems" in schema:
        return schema
    names = {"items": "prefixItems", "additionalItems": "items"}
    return {names.get(key, key): value for key, value in schema.items()}


def _bounds(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A boolean says whether the bound beside it is itself excluded."""
    for exclusive, bound in _BOUNDS:
        if isinstance(excluded := schema.get(exclusive), bool):
            schema = {key: value for key, value in schema.items() if key != exclusive}
            if excluded and bound in schema:
                schema = {(exclusive if key == bound else key): value for key, value in schema.items()}
    return schema
