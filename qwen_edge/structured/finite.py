"""Finds schemas that no finite answer fits: that of an object, for example, that requires another of its kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen_edge.structured.errors import Path, ShapeError
from qwen_edge.structured.keywords import nothing_fits, types_of
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
        for path, one in reached:
            if why := nothing_fits(one) or _forbidden(one):
                raise ShapeError(f"no answer fits: {why}", path)
        endless = next((ref for ref, finite in refs.items() if not finite), "")
        raise ShapeError(f"no finite answer fits: {endless or 'the schema'} requires itself without end")


def _is_finite(schema: Any, refs: Mapping[str, bool]) -> bool:
    """Whether a finite value fits, if the references that are True have one."""
    if not isinstance(schema, Mapping):
        return schema is not False
    if nothing_fits(schema) or (isinstance(ref := schema.get("$ref"), str) and not refs[ref]):
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
        properties, other = schema.get("properties", {}), _others(schema)
        return all(_is_finite(properties.get(name, other), refs) for name in schema.get("required", ()))
    least = schema.get("minItems", 0)
    first = schema.get("prefixItems", ())
    rest = [schema.get("items", True)] if least > len(first) else []
    return all(_is_finite(one, refs) for one in [*first[:least], *rest])


def _others(schema: Mapping[str, Any]) -> Any:
    """The schema of properties that are not named; any value where patterns may name them: which pattern a name
    matches, llguidance will tell."""
    return bool(schema.get("patternProperties")) or schema.get("additionalProperties", True)


def _forbidden(schema: Mapping[str, Any]) -> str:
    """Says which property is required, although no value may stand there; empty if there is none."""
    properties, other = schema.get("properties", {}), _others(schema)
    names = (name for name in schema.get("required", ()) if properties.get(name, other) is False)
    return next((f"{name} is required, and the schema forbids it" for name in names), "")
