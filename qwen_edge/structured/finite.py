"""Finds schemas that no finite answer fits: that of an object, for example, that requires another of its kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen_edge.structured.errors import Path, ShapeError
from qwen_edge.structured.keywords import types_of
from qwen_edge.structured.walk import target_of

MOST_REFERENCES = 256  # different ones; llguidance follows them recursively: 1,200 in a chain exhaust a stack of 8 MB


def require_finite(root: Mapping[str, Any], reached: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Raise ShapeError if every answer would be endless, as of an object that requires another of its own kind."""
    refs = {ref: False for _, one in reached if isinstance(ref := one.get("$ref"), str)}
    if len(refs) > MOST_REFERENCES:
        raise ShapeError(f"the schema has more than {MOST_REFERENCES} different references")
    targets = {ref: target_of(root, ref) for ref in refs}
    changed = True
    while changed:
        changed = False
        for ref, target in targets.items():
            if not refs[ref] and _is_finite(target, refs):
                refs[ref] = changed = True
    if not _is_finite(root, refs):
        endless = next((ref for ref, finite in refs.items() if not finite), "")
        raise ShapeError(f"no finite answer fits: {endless or 'the schema'} requires itself without end")


def _is_finite(schema: Any, refs: Mapping[str, bool]) -> bool:
    """Whether a finite value fits, if the references that are True have one."""
    if not isinstance(schema, Mapping):
        return schema is not False
    if isinstance(ref := schema.get("$ref"), str) and not refs[ref]:
        return False
    if not all(_is_finite(one, refs) for one in schema.get("allOf", ())):
        return False
    for name in ("anyOf", "oneOf"):
        if name in schema and not any(_is_finite(one, refs) for one in schema[name]):
            return False
    types = types_of(schema)
    return not types <= {"array", "object"} or any(_has_finite(schema, kind, refs) for kind in types)


def _has_finite(schema: Mapping[str, Any], kind: str, refs: Mapping[str, bool]) -> bool:
    if kind == "object":
        # which pattern a name matches, llguidance will tell
        other = "patternProperties" in schema or schema.get("additionalProperties", True)
        properties = schema.get("properties", {})
        return all(_is_finite(properties.get(name, other), refs) for name in schema.get("required", ()))
    least = schema.get("minItems", 0)
    first = schema.get("prefixItems", ())
    rest = [schema.get("items", True)] if least > len(first) else []
    return all(_is_finite(one, refs) for one in [*first[:least], *rest])
