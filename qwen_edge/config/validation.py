"""Turns msgspec's complaints about a value into what is wrong and where; for settings, in words that say what to write.

Requests use `split_complaint` and say it in words of their own.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, get_args

import msgspec

_AT = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`(?P<path>\$[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`")
_WORDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false",
    "object": "a group of settings", "array": "a list", "null": "nothing",
}  # fmt: skip

_Settings = type[msgspec.Struct]


def split_complaint(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong and where: ("Expected `int`, got `str`", "$.engine.context"). "$" is the whole value."""
    match = _AT.fullmatch(str(error))
    assert match, "the second half may be missing, so every text fits"
    return match["what"], match["path"] or "$"


def explain(error: msgspec.ValidationError, settings: _Settings) -> tuple[str, str]:
    """Where the mistake in `settings` is ("$.engine.contxt"), and a sentence with what to write instead."""
    what, path = split_complaint(error)
    if unknown := _UNKNOWN.fullmatch(what):
        known = [field.name for field in _fields(settings, path)]
        near = difflib.get_close_matches(unknown["field"], known, n=1)
        path = f"{path}.{unknown['field']}"
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
        what = f"there is no such setting. {hint}"
    elif what.startswith("Invalid enum value"):
        what = f"must be one of {', '.join(_choices(settings, path))}."
    else:
        what = re.sub(r"\b(" + "|".join(_WORDS) + r")\b", lambda word: _WORDS[word[0]], what).replace("`", "")
        what = what.replace(" | ", " or ") + "."
    return path, f"{what[0].lower()}{what[1:]}"


def _fields(settings: _Settings, path: str) -> tuple[msgspec.structs.FieldInfo, ...]:
    """The settings of the group at `path`."""
    kind: Any = settings
    for name in path.split(".")[1:]:
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.name == name)
    return msgspec.structs.fields(kind)


def _choices(settings: _Settings, path: str) -> tuple[str, ...]:
    """The words that the setting at `path` may be."""
    group, _, name = path.rpartition(".")
    return get_args(next(field.type for field in _fields(settings, group) if field.name == name))
