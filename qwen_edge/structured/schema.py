"""Checks a JSON schema before it is compiled: what is not enforced, what is too large, what no answer can satisfy.

The schema itself is enforced by llguidance (`compiler.py`), which implements most of JSON Schema 2020-12. This module
knows what it leaves out, so that a request can be refused, or warned, before any work begins. Pure.

Reference: https://json-schema.org/draft/2020-12, and llguidance's docs/json_schema.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import msgspec

from qwen_edge.structured.errors import Path, ShapeError, pointer
from qwen_edge.structured.finite import require_finite
from qwen_edge.structured.joined import most_joined
from qwen_edge.structured.keywords import complaint
from qwen_edge.structured.one_of import are_apart
from qwen_edge.structured.walk import is_combined, reached, resolve, target_of

LARGEST = 1 << 17  # characters of JSON
MOST_WORK = 1500  # see `_work`: a quarter of a second of compilation
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
    found = list(reached(schema))
    for path, one in found:
        if wrong := complaint(one):
            raise ShapeError(wrong, path)
    _require_small_multiples(found)
    _require_little_work(schema, found)
    keywords, formats = list[str](), list[str]()
    for path, one in found:
        place = f"(at {pointer(path) or '/'})"
        keywords += [f"{name} {place}" for name in _unenforced_here(one, schema)]
        if (form := one.get("format")) is not None and form not in FORMATS:
            formats.append(f"format {form} {place}")
    require_finite(schema, found)
    return Unenforced(tuple(keywords), tuple(formats))


def _require_little_work(schema: Mapping[str, Any], found: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Raise ShapeError for a schema that takes too long to compile."""
    work = 0
    for path, one in found:
        if (work := work + _work(one)) > MOST_WORK:
            raise ShapeError("the schema is too much work to compile: it describes too many values", path[:6])
    if most_joined(schema, partial(target_of, schema)) > MOST_JOINED:
        raise ShapeError(f"more than {MOST_JOINED} patterns, formats and lengths of texts are joined (allOf)")


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
    joined = len(found) > 1 and any(is_combined(one) for _, one in schemas)
    common = math.lcm(*(number for _, number in found)) if joined else max((number for _, number in found), default=0)
    if common > LARGEST_MULTIPLE:
        path, number = max(found, key=lambda one: one[1])
        whole = f", {common} with those it is combined with" if joined else ""
        raise ShapeError(f"multipleOf: {number}{whole}; at most {LARGEST_MULTIPLE} can be kept", path)


def _unenforced_here(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[str]:
    names = sorted(name for name in UNENFORCED & schema.keys() if schema[name] not in _NEUTRAL.get(name, ()))
    if not are_apart(schema.get("oneOf", []), partial(resolve, root=root)):
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
