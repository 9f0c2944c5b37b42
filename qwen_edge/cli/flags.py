"""The options of the command line that stand for settings have the settings' limits, from config.py."""

from __future__ import annotations

import math
from typing import Any

import click
import msgspec

from qwen_edge.config.schema import Config

MOST_TIMES = 1_000_000  # that something is repeated


class Number(click.FloatRange):
    """A number within limits. Infinity and NaN are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number to count with.", param, ctx)
        return number


def setting(path: str) -> click.IntRange:
    """The type of an option that is given in place of a setting with whole numbers, e.g. engine.context."""
    kind: Any = msgspec.inspect.type_info(Config)
    for name in path.split("."):
        kind = next(field.type for field in kind.fields if field.name == name)
    if isinstance(kind, msgspec.inspect.UnionType):  # or nothing
        kind = next(one for one in kind.types if isinstance(one, msgspec.inspect.IntType))
    assert isinstance(kind, msgspec.inspect.IntType)
    return click.IntRange(kind.ge, kind.le)
