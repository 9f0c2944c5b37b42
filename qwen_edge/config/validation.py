"""What msgspec says of a value it does not take, in two parts. Settings and requests tell it in their own words."""

from __future__ import annotations

import re

import msgspec

_AT = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`(?P<path>\$[^`]*)`)?", re.DOTALL)


def split_complaint(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong and where: ("Expected `int`, got `str`", "$.engine.context"). "$" is the whole value."""
    match = _AT.fullmatch(str(error))
    assert match, "the second half may be missing, so every text fits"
    return match["what"], match["path"] or "$"
