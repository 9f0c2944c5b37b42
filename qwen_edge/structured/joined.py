"""How many patterns one text may have to match at once. Pure.

llguidance looks for a text that matches all of them. The time and the memory of one step of this search double with
each pattern, and llguidance's own limit only counts steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_OF_TEXTS = (("pattern",), ("format",), ("minLength", "maxLength"))
_INSIDE = ("additionalProperties", "items")
_INSIDE_NAMED = ("properties", "patternProperties")


def most_joined(schema: Any, at: Callable[[str], Any]) -> int:
    """An upper bound: patterns, formats and lengths that allOf, anyOf, oneOf and `$ref` may join for one text. Those of
    one branch of an allOf count wherever those of another branch stand. `at`: what a `$ref` stands for."""
    return _Joined(at).most(schema)


class _Joined:
    def __init__(self, at: Callable[[str], Any]) -> None:
        self._at = at
        self._known = dict[int, int]()  # by identity; 0 for a schema inside itself, which joins nothing new

    def most(self, schema: Any) -> int:
        if not isinstance(schema, Mapping):
            return 0
        if (known := self._known.get(id(schema))) is not None:
            return known
        self._known[id(schema)] = 0
        own = sum(any(key in schema for key in keys) for keys in _OF_TEXTS)
        joined = max([own, *map(self.most, _inside(schema))])
        joined += sum(map(self.most, schema.get("allOf", ())))
        joined += sum(max(map(self.most, schema.get(key, ())), default=0) for key in ("anyOf", "oneOf"))
        if "$ref" in schema:
            joined += self.most(self._at(schema["$ref"]))
        self._known[id(schema)] = joined
        return joined


def _inside(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas of the values inside the value."""
    yield from (schema[key] for key in _INSIDE if key in schema)
    yield from schema.get("prefixItems", ())
    for key in _INSIDE_NAMED:
        yield from schema.get(key, {}).values()
