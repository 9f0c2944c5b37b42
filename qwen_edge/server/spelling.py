"""What a client may have meant by a parameter that does not exist. Pure."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_NAMED = "response_format.json_schema"
_ALIKE = 0.8  # of 1: one or two letters of a name differ
_LONGEST = 60  # characters of a name that is worth comparing


def advice(name: str, known: Collection[str]) -> str:
    """What to do about the unknown parameter. `known`: the full names of all parameters, such as
    stream_options.include_usage."""
    place, _, last = name.rpartition(".")
    beside = [one.rpartition(".")[2] for one in known if one.rpartition(".")[0] == place]
    if len(last) <= _LONGEST and (alike := get_close_matches(last, beside, 1, _ALIKE)):
        return f"Did you mean {place}{'.' if place else ''}{alike[0]}?"
    if place == _NAMED:
        return f"The schema itself stands in {_NAMED}.schema."
    if found := sorted(one for one in known if one.rpartition(".")[2] == last):
        return f"Did you mean {found[0]}?"
    return "Leave the parameter out."
