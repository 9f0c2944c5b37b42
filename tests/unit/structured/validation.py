"""The jsonschema library's validator, for answers whose formats are held to a pattern."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend

_FORMATS = FormatChecker(Draft202012Validator.FORMAT_CHECKER.checkers.keys())
_YEAR = re.compile(r"^\d{4}(?=-)")


def _in_a_leap_year(form: str) -> None:
    """docs/api.md: a date has the right form, but may be the 29th of February of any year."""
    strictly = Draft202012Validator.FORMAT_CHECKER.conforms

    @_FORMATS.checks(form)
    def check(value: object) -> bool:
        return not isinstance(value, str) or strictly(_YEAR.sub("2024", value), form)


def _multiple_of(_: Any, factor: float, instance: Any, __: Any) -> Iterator[ValidationError]:
    """Exactly, as the numbers are written: to the jsonschema library, 535.3 is no multiple of 0.1. What Python reads as
    infinity (1e999) is not written where multiples are asked for."""
    if not isinstance(instance, int | float) or isinstance(instance, bool):
        return
    if abs(instance) == math.inf or Fraction(repr(instance)) % Fraction(repr(factor)):
        yield ValidationError(f"{instance!r} is not a multiple of {factor}")


_Validator = extend(Draft202012Validator, {"multipleOf": _multiple_of})

for _form in ("date", "date-time"):
    if _form in _FORMATS.checkers:
        _in_a_leap_year(_form)


def is_judged(schema: Any, answer: str) -> bool:
    """Whether the library can judge the answer, a JSON text: it recurses without end where a schema refers to itself in
    the same place (`a: anyOf [a, string]`). Raises ValidationError if the answer does not fit."""
    try:
        validator(schema).validate(json.loads(answer))
    except RecursionError:
        return False
    return True


def validator(schema: Any) -> Any:
    """A validator that also checks formats."""
    return _Validator(schema, format_checker=_FORMATS)
