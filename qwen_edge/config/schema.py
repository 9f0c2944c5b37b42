"""Every setting of the daemon, with its default, in one place; and the YAML file that changes them.

A key that does not exist and a value that cannot be are errors that name the file, the line and the key. Nothing is
read after the start: the value is frozen and its parts are handed to those who need them.
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

MOST_PIN_HOURS = 24 * 366  # for which a conversation can be pinned
MOST_SECONDS = 1_000_000  # for every time in seconds
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY_ORIGIN = "*"

_MOST_TEXT = 100_000  # characters of a settings file: the example with every setting has 1,500
_MOST_NODES = 10_000  # keys and values, each counted again wherever an alias repeats it
_PATHS = ("model", "server.api_keys_file", "remember.folder", "device.trace")

_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Threads = Annotated[int, msgspec.Meta(ge=1, le=512)]  # with more, llama.cpp aborts the process
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=MOST_SECONDS)]
_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]*]+)(:[0-9]{1,5})?/?")
_PORTS = {"http": "80", "https": "443"}  # which browsers leave out


def plain_origin(origin: str) -> str:
    """The origin of web pages as browsers send it: in lower case, without the scheme's own port."""
    plain = origin.lower().removesuffix("/")
    scheme, _, rest = plain.partition("://")
    return plain.removesuffix(f":{_PORTS[scheme]}") if scheme in _PORTS and ":" in rest else plain


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the model is run. `threads` and `batch` None: what was measured to be best, else one for each physical core,
    and 128, or 512 on a GPU; `gpu_layers` -1: all that a GPU takes, 0: no GPU is used;
    `unload_seconds` None: the model stays in memory; `memory_limit_bytes` None: somewhat more than the memory plan."""

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
    """The HTTP side. `header_seconds` are for the head of a request, `body_seconds` for its body, `keepalive_seconds`
    for a connection between two requests, `stall_seconds` for a client that takes nothing of its answer. A stream is
    never silent for longer than `comment_seconds`. `drain_seconds` is how long running answers may take to finish when
    the daemon is stopped. `origins` are those of the web pages that browsers let read the answers; with `share_cache`
    key, what was computed for one key is not used for another."""

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
    """What is kept of conversations when the engine goes. `where`: on disk, only in memory that is not the engine's,
    or nowhere. `folder` None: one of our own."""

    where: Literal["disk", "memory", "off"] = "disk"
    folder: str | None = None
    bytes: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000_000
    bytes_per_day: Annotated[int, msgspec.Meta(ge=0)] = 2_000_000_000


class DeviceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Heat, power and energy. `source` is where temperatures and watts are read; `target_celsius` and `pause_celsius`
    None: what the board's own trip points suggest; `watts` is a limit for the whole board. On battery the engine
    computes for no more than `battery_duty` of the time, and only for people below a level of `battery_reserve`.
    `joules_per_hour` by client, `*` being all others."""

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
    """What a request gets that does not say otherwise. None leaves it to the model: its template, its defaults."""

    thinking: bool | None = None
    volatile: bool = False
    max_tokens: _Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    top_p: _Fraction | None = None
    min_p: _Fraction | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(ge=0.01, le=2)] | None = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model` None: the default model in the models folder, or the only one there."""

    model: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    engine: EngineConfig = EngineConfig()
    server: ServerConfig = ServerConfig()
    chat: ChatConfig = ChatConfig()
    remember: RememberConfig = RememberConfig()
    device: DeviceConfig = DeviceConfig()


def load_config(file: Path | None, base: Path | None = None) -> Config:
    """The settings of a YAML file on top of the defaults. Raises ConfigError.

    Without a file: `qwen-edge.yaml` in the service's configuration folder, if there is one. `base`: the folder that
    relative paths in the file begin at; None leaves them to the working directory of whoever uses them.
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
    except ValueError:  # of the path itself
        raise ConfigError(f"{str(file)!r} is no path of a settings file.") from None
    return parse_config(text, str(file), base)


def parse_config(text: str, where: str, base: Path | None = None) -> Config:
    """As `load_config`, from text; `where` names it in errors."""
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
    if isinstance(values, dict):  # a group whose every line is a comment
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
    except UnicodeEncodeError:  # of an escape: the file is UTF-8
        raise ConfigError(
            f"{where}: an escape such as \\ud83d is half a character. Write the character itself."
        ) from None
    return config


def _with_path(config: Config, name: str, what: str, base: Path | None) -> Config:
    """The same settings, with this path read from `base` on. Raises ConfigError if it cannot be a path."""
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
    """YAML takes the words on and off, without quotes, for true and false."""
    if isinstance(group, dict) and isinstance(group.get(key), bool):
        group[key] = "on" if group[key] else "off"


def _lines(node: yaml.Node, where: str, path: str = "$") -> dict[str, int]:
    """The line of every key, by its path ($.engine.context). A key given twice is an error: one would be lost.

    So is what aliases of aliases blow up: a few lines of YAML can mean more values than there is time to look at."""
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
    """msgspec's complaint in our words: which file, line and key, and what to write instead."""
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
