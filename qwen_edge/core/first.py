"""The first value that is there, of several that may be missing. Pure."""

from __future__ import annotations

from typing import Any


def first(*values: Any) -> Any:
    """The first value that is not None; None if all are."""
    return next((value for value in values if value is not None), None)
