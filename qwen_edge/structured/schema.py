"""Checks a JSON schema before it is compiled: what is not enforced, what is too large, what no answer can satisfy.

The schema itself is enforced by llguidance (`compiler.py`), which implements most of JSON Schema 2020-12. This module
knows what it leaves out, so that a request can be refused, or warned, before any work begins. Pure.

Reference: https://json-schema.org/draft/2020-12, and llguidance's docs/json_schema.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import msgspec

from qwen_edge.structured.apart import are_apart, types_of
from qwen_edge.structured.joined import most_joined
from qwen_edge.structured.keywords import complaint

LARGEST = 1 << 17  # characters of JSON
DEEPEST = 64  # schemas inside schemas
MOST_WORK = 1500  # see `_work`: a quarter of a second of compilation
MOST_REFERENCES = 256  # different ones; llguidance follows them recursively: 1,200 in a chain exhaust a stack of 8 MB
MOST_JOINED = 12  # patterns that one text must match: time and memory double with each; 20 take 1.6 s and 230 MB
LARGEST_MULTIPLE = 10_000  # the time to compile multipleOf grows with the number

# Keywords that llguidance does not implement. A test compares the list with what it refuses.
UNENFORCED = frozenset(
    {
        "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "contains", "dependencies", "dependentRequired",
        "dependentSchemas", "else", "if", "maxContains", "minContains", "not", "propertyNames", "then",
        "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
    }
)  # fmt: skip

FORMATS = frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"})
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "uniqueItems": (False,),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
}

_LARGEST_EXACT = 1 << 53
_LARGEST_INTEGER = (1 << 63) - 1

# where schemas stand inside a schema
_ONE = ("additionalProperties", "items", "not", "if", "then", "else", "contains", "propertyNames")
_SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")

Path = tuple[str | int, ...]


class ShapeError(Exception):
    """A shape that cannot be used. `where` is a JSON pointer into the schema; empty for the whole."""

    def __init__(self, what: str, where: Path = ()) -> None:
        super().__init__(what)
        self.what, self.where = what, pointer(where)

    def __str__(self) -> str:
        return f"{self.what} (at {self.where})" if self.where else self.what


def pointer(path: Path) -> str:
    """The JSON pointer of a place in the schema: /properties/percent."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


class Unenforced(NamedTuple):
    """What answers will not be held to, each as `keyword (at /place)`. The keyword `format` only describes, unless a
    client asks for more: those of its values that are not enforced are apart."""

    keywords: tuple[str, ...]
    formats: tuple[str, ...]


def check(schema: Mapping[str, Any]) -> Unenforced:
    """What answers will not be held to. Raises ShapeError for a schema that is too large, too deep or too much work to
    compile, or that no finite answer can satisfy."""
    if len(msgspec.json.encode(schema)) > LARGEST:
        raise ShapeError(f"the schema has more than {LARGEST} characters")
    reached = list(_reached(schema))
    for path, one in reached:
        if wrong := complaint(one):
            raise ShapeError(wrong, path)
    _require_small_multiples(reached)
    _require_little_work(schema, reached)
    keywords, formats = list[str](), list[str]()
    for path, one in reached:
        place = f"(at {pointer(path) or '/'})"
        keywords += [f"{name} {place}" for name in _unenforced_here(one, schema)]
        if (form := one.get("format")) is not None and form not in FORMATS:
            formats.append(f"format {form} {place}")
    _require_finite(schema, reached)
    return Unenforced(tuple(keywords), tuple(formats))


def _require_little_work(schema: Mapping[str, Any], reached: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Raise ShapeError for a schema that takes too long to compile."""
    work = 0
    for path, one in reached:
        if (work := work + _work(one)) > MOST_WORK:
            raise ShapeError("the schema is too much work to compile: it describes too many values", path[:6])
    if most_joined(schema, partial(_at, schema)) > MOST_JOINED:
        raise ShapeError(f"more than {MOST_JOINED} patterns, formats and lengths of texts are joined (allOf)")


def _reached(root: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """All schemas inside the schema, with those that a `$ref` leads to at any other place in it. Raises ShapeError."""
    seen, waiting = set[int](), list[tuple[Path, Any]]([((), root)])
    while waiting:
        start, schema = waiting.pop()
        for path, one in _schemas(schema, start):
            if id(one) in seen:
                continue
            seen.add(id(one))
            yield path, one
            if isinstance(ref := one.get("$ref"), str) and id(target := _at(root, ref)) not in seen:
                waiting.append((tuple(ref[1:].split("/")[1:]), target))


def _schemas(schema: Any, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The schema and all schemas inside it, with their places."""
    if len(path) > 2 * DEEPEST:
        raise ShapeError(f"schemas are nested more than {DEEPEST} deep", path[:6])
    if not isinstance(schema, Mapping):
        if not isinstance(schema, bool):
            raise ShapeError("a schema must be an object, true or false", path)
        return
    yield path, schema
    for name in _ONE:
        if name in schema:
            yield from _schemas(schema[name], (*path, name))
    for name in _SEVERAL:
        if not isinstance(parts := schema.get(name, []), Sequence) or isinstance(parts, str):
            raise ShapeError(f"{name} must be a list of schemas", path)
        for number, part in enumerate(parts):
            yield from _schemas(part, (*path, name, number))
    for name in _NAMED:
        if not isinstance(parts := schema.get(name, {}), Mapping):
            raise ShapeError(f"{name} must be an object whose values are schemas", path)
        for key, part in parts.items():
            yield from _schemas(part, (*path, name, key))


def _work(schema: Mapping[str, Any]) -> int:
    """What this schema, without those inside it, adds to the time of compilation, in units of 0.1 ms."""
    work = 1 + _length(schema.get("required")) + _length(schema.get("patternProperties")) ** 2 // 40
    if any(bound in schema for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")):
        work += 10
    return work + _whole_part(schema.get("multipleOf", 0)) // 20


def _length(value: Any) -> int:
    return len(value) if isinstance(value, Sequence | Mapping) else 0


def _whole_part(number: Any) -> int:
    """The number without its point: 25 for 0.25."""
    if not isinstance(number, int | float) or isinstance(number, bool) or not math.isfinite(number):
        return 0
    _, digits, exponent = Decimal(str(number)).as_tuple()
    return int(Decimal((0, digits, max(0, int(exponent)))))


def _require_small_multiples(schemas: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Raise ShapeError if multiples of a large number are asked for; where schemas are combined, also of the product
    of several, as allOf may join any of them."""
    found = [(path, _whole_part(one["multipleOf"])) for path, one in schemas if "multipleOf" in one]
    joined = len(found) > 1 and any(_is_joined(one) for _, one in schemas)
    common = math.lcm(*(number for _, number in found)) if joined else max((number for _, number in found), default=0)
    if common > LARGEST_MULTIPLE:
        path, number = max(found, key=lambda one: one[1])
        whole = f", {common} with those it is combined with" if joined else ""
        raise ShapeError(f"multipleOf: {number}{whole}; at most {LARGEST_MULTIPLE} can be kept", path)


def _is_joined(schema: Mapping[str, Any]) -> bool:
    """Whether several schemas describe one value together."""
    beside = any(key in schema for key in ("anyOf", "oneOf", "$ref"))
    return "allOf" in schema or (beside and len(schema.keys() - {"$defs", "definitions", "description", "title"}) > 1)


def _unenforced_here(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[str]:
    names = sorted(name for name in UNENFORCED & schema.keys() if schema[name] not in _NEUTRAL.get(name, ()))
    if not are_apart(schema.get("oneOf", []), partial(_resolve, root=root)):
        names.append("oneOf")  # enforced as anyOf: more than one of them may fit
    least = schema.get("minProperties", 0)
    if isinstance(least, int) and least > len(schema.get("required", ())):
        names.append("minProperties")  # a name that is written twice would count twice
    if "maxProperties" in schema and not _counts_properties(schema):
        names.append("maxProperties")
    return names + _inexact(schema)


def _inexact(schema: Mapping[str, Any]) -> list[str]:
    """The keywords whose numbers llguidance rounds: it computes in double precision. Bounds that no number of 64 bits
    reaches hold all the same."""
    names = [name for name in ("const", "enum") if _has_large(schema.get(name))]
    for name, sign in (("minimum", -1), ("exclusiveMinimum", -1), ("maximum", 1), ("exclusiveMaximum", 1)):
        if isinstance(bound := schema.get(name), int) and _has_large(bound) and sign * bound < _LARGEST_INTEGER:
            names.append(name)
    return names


def _has_large(value: Any) -> bool:
    """Whether an integer that double precision cannot tell from its neighbours is the value, or inside it."""
    if isinstance(value, Mapping):
        return any(_has_large(one) for one in value.values())
    if isinstance(value, list):
        return any(_has_large(one) for one in value)
    return isinstance(value, int) and abs(value) > _LARGEST_EXACT


def _counts_properties(schema: Mapping[str, Any]) -> bool:
    """Whether maxProperties is enforced: llguidance miscounts optional properties, so it is where none are named, or
    where there cannot be too many."""
    named = schema.get("properties", {})
    closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    return not named or (closed and len(named) <= schema["maxProperties"])


def _resolve(schema: Any, root: Mapping[str, Any]) -> Any:
    """The schema that a local `$ref` leads to, through at most DEEPEST others; the schema itself if it has none."""
    for _ in range(DEEPEST):
        if not isinstance(schema, Mapping) or not isinstance(ref := schema.get("$ref"), str):
            return schema
        schema = _at(root, ref)
    return schema


def _at(root: Any, ref: str) -> Any:
    """What a reference such as #/$defs/room stands for. Raises ShapeError."""
    found = root
    if ref != "#" and not ref.startswith("#/"):
        where = "to an anchor" if ref.startswith("#") else "out of the schema"
        raise ShapeError(f"$ref: {ref} leads {where}; only references that begin with #/ are followed")
    for part in (one.replace("~1", "/").replace("~0", "~") for one in ref[1:].split("/")[1:]):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise ShapeError(f"$ref: {ref} leads nowhere")
    return found


def _require_finite(root: Mapping[str, Any], reached: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Raise ShapeError if every answer would be endless, as of an object that requires another of its own kind."""
    refs = {ref: False for _, one in reached if isinstance(ref := one.get("$ref"), str)}
    if len(refs) > MOST_REFERENCES:
        raise ShapeError(f"the schema has more than {MOST_REFERENCES} different references")
    targets = {ref: _at(root, ref) for ref in refs}
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
        properties, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        return all(_is_finite(properties.get(name, other), refs) for name in schema.get("required", ()))
    least = schema.get("minItems", 0)
    first = schema.get("prefixItems", ())
    rest = [schema.get("items", True)] if least > len(first) else []
    return all(_is_finite(one, refs) for one in [*first[:least], *rest])
