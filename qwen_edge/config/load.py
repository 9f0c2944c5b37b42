"""Reads the settings: the YAML file, whose mistakes are told with their lines, and what the command line overrides.

An unknown key or an invalid value is an error that names the file, the line and the key. The file is read only at the
start of a program.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from qwen_edge.config.paths import Place, expand_path
from qwen_edge.config.schema import Config
from qwen_edge.config.validation import explain
from qwen_edge.core.errors import ConfigError
from qwen_edge.core.regular_file import regular_only

_MOST_TEXT = 100_000  # characters of a settings file: the example with every setting has 1,500
_MOST_NODES = 10_000  # keys and values, counted again wherever an alias repeats them
_PATHS = ("model", "server.api_keys_file", "remember.folder", "device.trace")


def load_config(file: Path | None, base: Path | None = None) -> Config:
    """Read the settings from a YAML file; missing ones get their defaults. Raises ConfigError.

    Without a file: `qwen-edge.yaml` in the service's configuration folder, if it exists. `base`: the folder to which
    relative paths in the file refer; None for the working directory of the process that uses them.
    """
    if file is None:
        # set by systemd
        file = Path(os.environ.get("CONFIGURATION_DIRECTORY", "/nonexistent")) / "qwen-edge.yaml"
        if not file.is_file():
            return Config()
    try:
        with open(file, encoding="utf-8", opener=regular_only) as opened:
            text = opened.read(_MOST_TEXT + 1)
    except PermissionError as error:
        raise ConfigError(
            f"{file}: cannot be read: {error.strerror}. Run the same command with sudo, or let others read the file: "
            f"sudo chmod a+r {file}"
        ) from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text. Save the file as UTF-8.") from None
    except ValueError:  # the path contains a zero byte
        raise ConfigError(f"{str(file)!r} is no path of a settings file.") from None
    return parse_config(text, str(file), base)


def parse_config(text: str, where: str, base: Path | None = None) -> Config:
    """As `load_config`, from text. `where`: its name in errors."""
    if len(text) > _MOST_TEXT:
        raise ConfigError(f"{where}: is longer than {_MOST_TEXT} characters, so it is no settings file of qwen-edge.")
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = {} if tree is None else _lines(tree, where)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{where}, line {line}: not valid YAML: {error.problem}.") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML: a value contains itself, or has too many levels.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise ConfigError(f"{where}: not valid YAML: {error}.") from None
    if isinstance(values, dict):  # an empty group: all its lines are comments
        values = {key: value for key, value in values.items() if value is not None}
        _read_switch(values.get("engine"), "flash_attention")
        _read_switch(values.get("remember"), "where")
    try:
        config = msgspec.convert({} if values is None else values, Config)
    except msgspec.ValidationError as error:
        path, what = explain(error, Config)
        named = path[2:] or "the file"
        raise ConfigError(f"{where}, line {_nearest(path, lines)}: {named}: {what}") from None
    for name in _PATHS:
        config = _with_path(config, name, f"{where}, line {_nearest(f'$.{name}', lines)}: {name}", base)
    try:
        msgspec.json.encode(config)
    except UnicodeEncodeError:  # a lone surrogate in an escape sequence
        raise ConfigError(
            f"{where}: an escape such as \\ud83d is half a character. Write the character itself."
        ) from None
    return config


def config_of(place: Place) -> Config:
    """The settings of a place as its daemon has them, but for other names of the model: what the unit's command line
    says wins over the file. Raises ConfigError for a settings file that cannot be used."""
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


def _with_path(config: Config, name: str, what: str, base: Path | None) -> Config:
    """The settings with the path of this key resolved against `base`. Raises ConfigError if it cannot be a path."""
    group, _, key = name.rpartition(".")
    held = getattr(config, group) if group else config
    text = getattr(held, key)
    if text is None:
        return config
    path = expand_path(text, what)
    if base is None or path.is_absolute() or not text:
        return config
    held = msgspec.structs.replace(held, **{key: str(base / path)})
    return msgspec.structs.replace(config, **{group: held}) if group else held


def _read_switch(group: Any, key: str) -> None:
    """Turn true and false back into on and off: YAML reads these words, without quotes, as booleans."""
    if isinstance(group, dict) and isinstance(group.get(key), bool):
        group[key] = "on" if group[key] else "off"


def _lines(node: yaml.Node, where: str, path: str = "$") -> dict[str, int]:
    """The line of every key, by its path ($.engine.context). A duplicate key is an error, because one value would be
    lost. So are too many keys: with nested aliases, a few lines of YAML expand to more values than can be checked."""
    lines = {path: node.start_mark.line + 1}
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines |= _lines(item, where, f"{path}[{i}]")
            _check_count(lines, where)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{where}, line {line}: a name of a setting is text, not a list or a group.")
            inner = f"{path}.{key.value}"
            if inner in lines:
                raise ConfigError(f"{where}, line {line}: {inner[2:]} is given twice (first in line {lines[inner]}).")
            lines |= _lines(value, where, inner)
            lines[inner] = line
            _check_count(lines, where)
    return lines


def _check_count(lines: dict[str, int], where: str) -> None:
    if len(lines) > _MOST_NODES:
        raise ConfigError(
            f"{where}, line {min(lines.values())}: there are more than {_MOST_NODES} values, with those "
            "that aliases (*name) repeat. Write the settings without aliases."
        )


def _nearest(path: str, lines: dict[str, int]) -> int:
    while path not in lines and path != "$":
        path = path.rpartition(".")[0] or "$"
    return lines.get(path, 1)
