"""Types of numeric options. An option that stands for a setting has that setting's limits (config/schema.py)."""

from __future__ import annotations

import math
from typing import Any

import click
import msgspec

from qwen_edge.config.schema import Config

MOST_TIMES = 1_000_000  # the largest --repeat


class Number(click.FloatRange):
    """A number within limits; infinity and NaN are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def setting(path: str) -> click.IntRange:
    """The type of an option that replaces a whole-number setting, e.g. engine.context."""
    kind: Any = msgspec.inspect.type_info(Config)
    for name in path.split("."):
        kind = next(field.type for field in kind.fields if field.name == name)
    if isinstance(kind, msgspec.inspect.UnionType):  # the setting may be None
        kind = next(one for one in kind.types if isinstance(one, msgspec.inspect.IntType))
    assert isinstance(kind, msgspec.inspect.IntType)
    return click.IntRange(kind.ge, kind.le)
