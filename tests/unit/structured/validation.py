"""The jsonschema library's validator, for answers whose formats are held to a pattern."""

from __future__ import annotations

import re
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

_FORMATS = FormatChecker(Draft202012Validator.FORMAT_CHECKER.checkers.keys())
_YEAR = re.compile(r"^\d{4}(?=-)")


def _in_a_leap_year(form: str) -> None:
    """docs/api.md: a date has the right form, but may be the 29th of February of any year."""
    strictly = Draft202012Validator.FORMAT_CHECKER.conforms

    @_FORMATS.checks(form)
    def check(value: object) -> bool:
        return not isinstance(value, str) or strictly(_YEAR.sub("2024", value), form)


for _form in ("date", "date-time"):
    if _form in _FORMATS.checkers:
        _in_a_leap_year(_form)


def validator(schema: Any) -> Draft202012Validator:
    """A validator that also checks formats."""
    return Draft202012Validator(schema, format_checker=_FORMATS)
