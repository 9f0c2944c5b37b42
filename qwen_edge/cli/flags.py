"""Types of numeric options. An option that stands for a setting has that setting's limits (config/schema.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from qwen_edge.config.paths import Place
from qwen_edge.config.schema import Config, load_config
from qwen_edge.core.errors import ConfigError

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


def config_of(place: Place) -> Config:
    """The settings of a place as its daemon has them: what the unit's command line says wins over the file.

    Raises ConfigError for settings that the daemon could not start with."""
    config = load_config(place.settings, place.working)
    said = {name.removeprefix("--"): value for name, value in place.options.items()}
    numbers = {name: int(said[name]) for name in ("port", "context", "threads") if said.get(name, "").isdecimal()}
    model = said.get("model")
    if model and place.working and not model.startswith("~"):
        model = str(place.working / model)
    return apply_options(config, model, {**numbers, "host": said.get("host")})


def apply_options(config: Config, model: str | None, options: Mapping[str, Any]) -> Config:
    """The settings with what the command line of `serve` says instead. Raises ConfigError for what is not UTF-8."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in ("host", "alias"):
        try:
            "".join(given.get(name, "")).encode("utf-8")
        except UnicodeEncodeError:
            raise ConfigError(f"--{name} is not UTF-8 text: {given[name]!r}.") from None
    server: dict[str, Any] = {name: given[name] for name in ("host", "port") if name in given}
    if "alias" in given:
        server["model_aliases"] = given["alias"]
    engine = {name: given[name] for name in ("context", "threads") if name in given}
    return msgspec.structs.replace(
        config,
        model=config.model if model is None else model,
        server=msgspec.structs.replace(config.server, **server),
        engine=msgspec.structs.replace(config.engine, **engine),
    )
