"""The unit of the service as systemd has it: the file, and the drop-ins that add to it (man systemd.unit).

Only what decides where the service looks is read. systemctl could tell all of it, but not in a container, nor of a unit
that has not been loaded yet.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

_NAME = "qwen-edge.service"
_FOLDERS = (  # the first that has a file of some name wins
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_DROP_INS = (f"{_NAME}.d", "qwen-.service.d", "service.d")  # the same
_SPECIFIERS = {
    "%S": "/var/lib",
    "%E": "/etc",
    "%t": "/run",
    "%C": "/var/cache",
    "%n": _NAME,
    "%N": "qwen-edge",
    "%%": "%",
}
_SHORT = {"-c": "--config"}
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True)
class Unit:
    """`program` is what ExecStart runs, `options` what it is given by name (`--config`, `--model`, ...), `environment`
    the variables that the unit sets. `state` and `configuration` are the names of its folders in /var/lib and /etc,
    `working` the folder that relative paths begin at."""

    program: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    state: str = "qwen-edge"
    configuration: str = "qwen-edge"
    working: Path = Path("/")


def read_unit(root: Path = Path("/")) -> Unit | None:
    """None if the service is not installed: drop-ins alone are no service."""
    text = next((text for folder in _FOLDERS if (text := _text(root / folder / _NAME)) is not None), None)
    if text is None:
        return None
    said: dict[str, list[str]] = {}
    for part in (text, *_drop_ins(root)):
        for name, value in _assignments(part):
            if value:
                said.setdefault(name, []).append(value)
            else:
                said.pop(name, None)  # as in systemd: an empty one takes back those before
    environment = _environment(said, root)
    words = _words(said.get("ExecStart", [""])[-1].lstrip("-@:+!|"), environment)
    serve = words.index("serve") if "serve" in words[1:] else 0  # a program that starts others may stand before it
    working = said.get("WorkingDirectory", ["/"])[-1].lstrip("-")
    return Unit(
        program=Path(words[max(0, serve - 1)]) if words else None,
        options=_options(words[serve + 1 :]) if serve else {},
        environment=environment,
        state=_folder(said, "StateDirectory"),
        configuration=_folder(said, "ConfigurationDirectory"),
        working=Path("/") if working == "~" else Path("/", _specified(working)),  # ~ of a DynamicUser= is /
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _drop_ins(root: Path) -> Iterator[str]:
    """By their names, whatever folder they lie in; of one name the first folder's, so that a link to /dev/null there
    takes back what a package has brought."""
    found: dict[str, Path] = {}
    for drop_in in _DROP_INS:
        for folder in _FOLDERS:
            for file in (root / folder / drop_in).glob("*.conf"):
                found.setdefault(file.name, file)
    yield from (text for _, file in sorted(found.items()) if (text := _text(file)) is not None)


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """Those of [Service]. A line that ends in a backslash goes on in the next that is no comment."""
    section, begun = "", ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        whole, begun = begun + line, ""
        name, is_set, value = whole.partition("=")
        if whole.startswith("["):
            section = whole
        elif is_set and section == "[Service]":
            yield name.strip(), value.strip()


def _environment(said: Mapping[str, list[str]], root: Path) -> dict[str, str]:
    """What files say wins over what the unit says."""
    written = [word for line in said.get("Environment", ()) for word in _split(line)]
    for name in said.get("EnvironmentFile", ()):
        text = _text(root / _specified(name.lstrip("-")).lstrip("/")) or ""
        lines = (line.strip() for line in text.splitlines())
        written += [" ".join(_split(line)) for line in lines if line and not line.startswith(("#", ";"))]
    return {name: _specified(value) for name, is_set, value in (one.partition("=") for one in written) if is_set}


def _words(line: str, environment: Mapping[str, str]) -> list[str]:
    def variable(match: re.Match[str]) -> str:
        return environment.get(match[1] or match[2], "")

    return [_VARIABLE.sub(variable, _specified(word)) for word in _split(line)]


def _options(words: list[str]) -> dict[str, str]:
    """The last of each name wins, as on the command line."""
    options: dict[str, str] = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--"):
            name, given, value = word.partition("=")
            options[name] = value if given else following
        elif word[:2] in _SHORT:
            options[_SHORT[word[:2]]] = word[2:] or following
    return options


def _folder(said: Mapping[str, list[str]], name: str) -> str:
    words = _split(said.get(name, [""])[-1])
    return _specified(words[0]).partition(":")[0] if words else "qwen-edge"


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that does not end: systemd does not take the line either
        return []


def _specified(text: str) -> str:
    return re.sub("%.", lambda match: _SPECIFIERS.get(match[0], match[0]), text)


def under(root: Path, path: Path | str) -> Path:
    """An absolute path of the service, in the file system that begins at `root`."""
    return root / os.path.relpath(path, "/")
