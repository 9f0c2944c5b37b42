"""All settings of the daemon, with their defaults, and the reader of the YAML file that changes them.

An unknown key or an invalid value is an error that names the file, the line and the key. The file is read only at the
start: the settings are frozen, and each component gets its part.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import yaml

from qwen_edge.config.paths import expand_path
from qwen_edge.config.validation import split_complaint
from qwen_edge.core.errors import ConfigError
from qwen_edge.protocol.messages import LEAST_CONTEXT, Attention, KvType

MOST_PIN_HOURS = 24 * 366  # the longest time for which a conversation can be pinned
MOST_SECONDS = 1_000_000  # the largest value of any setting in seconds
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY_ORIGIN = "*"

_MOST_TEXT = 100_000  # characters of a settings file: the example with every setting has 1,500
_MOST_NODES = 10_000  # keys and values, counted again wherever an alias repeats them
_PATHS = ("model", "server.api_keys_file", "remember.folder", "device.trace")

_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Threads = Annotated[int, msgspec.Meta(ge=1, le=512)]  # with more, llama.cpp aborts the process
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=MOST_SECONDS)]
_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]*]+)(:[0-9]{1,5})?/?")
_PORTS = {"http": "80", "https": "443"}  # default ports, which browsers omit


def plain_origin(origin: str) -> str:
    """The origin in the form that browsers send: in lower case, without the scheme's default port."""
    plain = origin.lower().removesuffix("/")
    scheme, _, rest = plain.partition("://")
    return plain.removesuffix(f":{_PORTS[scheme]}") if scheme in _PORTS and ":" in rest else plain


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the model is run. `threads`, `batch`: None for the measured values; without a measurement, one thread for
    each physical core, and a batch of 128 (512 on a GPU). `gpu_layers`: -1 for as many as the GPU takes, 0 for no
    GPU. `unload_seconds`: None keeps the model in memory. `memory_limit_bytes`: None for the memory plan and some
    reserve."""

    context: Annotated[int, msgspec.Meta(ge=LEAST_CONTEXT, le=1 << 20)] = 8192
    threads: _Threads | None = None
    batch: Annotated[int, msgspec.Meta(ge=16, le=4096)] | None = None
    speculate: bool = True
    parallel: Annotated[int, msgspec.Meta(ge=1, le=32)] = 8
    gpu_layers: Annotated[int, msgspec.Meta(ge=-1, le=1000)] = -1
    require_gpu: bool = False
    kv_type: KvType = "auto"
    flash_attention: Attention = "auto"
    ahead_tokens_per_hour: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stash_bytes: Annotated[int, msgspec.Meta(ge=0)] = 64_000_000
    calibrate: bool = True
    load_seconds: _Seconds = 600
    hang_seconds: _Seconds = 30
    unload_seconds: _Seconds | None = None
    memory_limit_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP server. Time limits: `header_seconds` for the head of a request, `body_seconds` for its body,
    `keepalive_seconds` for a connection between two requests, `stall_seconds` for a client that does not read its
    answer, `drain_seconds` for running answers when the daemon stops. A stream that is silent for `comment_seconds`
    gets a comment. `origins`: the origins of web pages that may read the answers. With `share_cache: key`, the
    cached prompts of one key are not used for another."""

    host: str = "127.0.0.1"
    port: _Port = 8080
    api_keys_file: str | None = None
    origins: tuple[str, ...] = ()
    share_cache: Literal["all", "key"] = "key"
    model_aliases: tuple[str, ...] = ()
    model_names: Literal["any", "listed"] = "any"
    unknown_parameters: Literal["reject", "ignore"] = "reject"
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 1 << 20
    max_connections: _Positive = 256
    max_waiting: Annotated[int, msgspec.Meta(ge=0)] = 16
    header_seconds: _Seconds = 10
    body_seconds: _Seconds = 30
    keepalive_seconds: _Seconds = 75
    stall_seconds: _Seconds = 30
    comment_seconds: _Seconds = 10
    wait_seconds: _Seconds = 120
    answer_seconds: _Seconds = 600
    drain_seconds: _Seconds = 60

    def __post_init__(self) -> None:
        for number, origin in enumerate(self.origins):
            if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"origins[{number}] must be the origin of web pages, such as https://home.example or "
                    "http://192.168.1.5:8123, without a path; or * for all pages"
                )


class RememberConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How conversations outlive the engine. `where`: on disk, only in memory outside the engine, or nowhere. `folder`:
    None for a folder in the state folder, or in memory."""

    where: Literal["disk", "memory", "off"] = "disk"
    folder: str | None = None
    bytes: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000_000
    bytes_per_day: Annotated[int, msgspec.Meta(ge=0)] = 2_000_000_000


class DeviceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Heat, power and energy. `source`: where temperatures and watts are read. `target_celsius`, `pause_celsius`: None
    for values from the board's trip points. `watts`: the limit of the whole board. On battery the engine computes
    for at most `battery_duty` of the time; below the level `battery_reserve` it serves only interactive requests.
    `joules_per_hour`: by client; `*` stands for all other clients."""

    source: Literal["auto", "sysfs", "jtop", "laptop", "trace", "none"] = "auto"
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.5, le=5)] = 1.0
    target_celsius: Annotated[float, msgspec.Meta(ge=30, le=95)] | None = None
    pause_celsius: Annotated[float, msgspec.Meta(ge=35, le=105)] | None = None
    watts: Annotated[float, msgspec.Meta(gt=0)] | None = None
    battery_duty: Annotated[float, msgspec.Meta(ge=0.05, le=1)] = 0.7
    battery_reserve: _Fraction = 0.1
    joules_per_hour: dict[str, Annotated[float, msgspec.Meta(gt=0)]] = {}
    trace: str | None = None
    trace_speed: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0


class ChatConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Defaults of requests. None leaves the choice to the model: its template, its sampling defaults."""

    thinking: bool | None = None
    volatile: bool = False
    max_tokens: _Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    top_p: _Fraction | None = None
    min_p: _Fraction | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(ge=0.01, le=2)] | None = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings. `model`: None for the default model in the models folder, or the only model there."""

    model: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    engine: EngineConfig = EngineConfig()
    server: ServerConfig = ServerConfig()
    chat: ChatConfig = ChatConfig()
    remember: RememberConfig = RememberConfig()
    device: DeviceConfig = DeviceConfig()


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
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_MOST_TEXT + 1)
    except PermissionError as error:
        raise ConfigError(
            f"{file}: cannot be read: {error.strerror}. Run the same command with sudo, or let others read the file: "
            f"sudo chmod a+r {file}"
        ) from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text.") from None
    except ValueError:  # the path contains a zero byte
        raise ConfigError(f"{str(file)!r} is no path of a settings file.") from None
    return parse_config(text, str(file), base)


def parse_config(text: str, where: str, base: Path | None = None) -> Config:
    """As `load_config`, from text. `where`: its name in errors."""
    if len(text) > _MOST_TEXT:
        raise ConfigError(f"{where}: is longer than {_MOST_TEXT} characters, so it is no settings file of ours.")
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = {} if tree is None else _lines(tree, where)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{where}, line {line}: not valid YAML: {error.problem}.") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML: a value contains itself, or too many levels.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise ConfigError(f"{where}: not valid YAML: {error}.") from None
    if isinstance(values, dict):  # an empty group: all its lines are comments
        values = {key: value for key, value in values.items() if value is not None}
        _read_switch(values.get("engine"), "flash_attention")
        _read_switch(values.get("remember"), "where")
    try:
        config = msgspec.convert({} if values is None else values, Config)
    except msgspec.ValidationError as error:
        what, path = split_complaint(error)
        raise ConfigError(_explain(what, path, where, lines)) from None
    for name in _PATHS:
        config = _with_path(config, name, f"{where}, line {_nearest(f'$.{name}', lines)}: {name}", base)
    try:
        msgspec.json.encode(config)
    except UnicodeEncodeError:  # a lone surrogate in an escape sequence
        raise ConfigError(
            f"{where}: an escape such as \\ud83d is half a character. Write the character itself."
        ) from None
    return config


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
            f"{where}, line {min(lines.values())}: these are more than {_MOST_NODES} values, those counted that "
            "aliases (*name) repeat. Write the settings without aliases."
        )


_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`")
_WORDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false",
    "object": "a group of settings", "array": "a list", "null": "nothing",
}  # fmt: skip


def _explain(what: str, path: str, where: str, lines: dict[str, int]) -> str:
    """Turn msgspec's error into a message that names file, line and key, and what to write instead."""
    if unknown := _UNKNOWN.fullmatch(what):
        known = [field.name for field in _fields(path)]
        near = difflib.get_close_matches(unknown["field"], known, n=1)
        path = f"{path}.{unknown['field']}"
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
        what = f"there is no such setting. {hint}"
    elif what.startswith("Invalid enum value"):
        what = f"must be one of {', '.join(_choices(path))}."
    else:
        what = re.sub(r"\b(" + "|".join(_WORDS) + r")\b", lambda word: _WORDS[word[0]], what).replace("`", "")
        what = what.replace(" | ", " or ") + "."
    return f"{where}, line {_nearest(path, lines)}: {path[2:] or 'the file'}: {what[0].lower()}{what[1:]}"


def _fields(path: str) -> tuple[msgspec.structs.FieldInfo, ...]:
    kind: Any = Config
    for name in path.split(".")[1:]:
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.name == name)
    return msgspec.structs.fields(kind)


def _choices(path: str) -> tuple[str, ...]:
    group, _, name = path.rpartition(".")
    return get_args(next(field.type for field in _fields(group) if field.name == name))


def _nearest(path: str, lines: dict[str, int]) -> int:
    while path not in lines and path != "$":
        path = path.rpartition(".")[0] or "$"
    return lines.get(path, 1)
