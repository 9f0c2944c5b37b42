"""Starts a daemon for one program: on a free port, with a state folder of its own, until the program ends.

It reads the settings and the measurements of the daemon that is installed here, and changes nothing of that daemon: not
its port, not its conversations, not its files. What it measures of its model is kept for later starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import yaml
from msgspec.structs import replace

from qwen_edge.client.start_server import StartedServer, started
from qwen_edge.config.load import config_of
from qwen_edge.config.paths import Place, expand_path, find_model, find_place, state_folder
from qwen_edge.config.schema import Config, RememberConfig, ServerConfig
from qwen_edge.core.errors import ConfigError, NotNowError, UnservableError, UserError
from qwen_edge.core.python_process import own_command
from qwen_edge.models.tuning import described, keep, recall
from qwen_edge.protocol.messages import Tuning

_PAUSE = 0.05  # seconds between two looks at the output of a daemon that starts
_READY = re.compile(r"qwen-edge \S+  (http://\S+)  ")  # its one line on stdout
_LOGGED = re.compile(r"(?:\S+ \S+ )?(?:WARNING|ERROR) ")  # the beginning of a line of its log
_ERRORS: dict[int, type[UserError]] = {75: NotNowError, 78: UnservableError}  # by exit code: core/errors.py
_OF_A_SERVICE = ("NOTIFY_SOCKET", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CONFIGURATION_DIRECTORY")


@dataclass(frozen=True)
class PrivateDaemon:
    """A daemon that answers at `url` (without /v1) and serves `model`."""

    url: str
    model: Path
    process: StartedServer

    async def has_ended(self, seconds: float = 0.0) -> bool:
        """Whether it is gone, which nobody asked for, or goes within so many seconds: a connection breaks shortly
        before its process has ended. Whoever still needs it leaves the context and starts another."""
        await asyncio.wait({self.process.ended}, timeout=seconds)
        return self.process.ended.done()


@asynccontextmanager
async def private_daemon(
    model: Path | str | None = None,
    *,
    settings: Path | None = None,
    context: int | None = None,
    say: Callable[[str], None] = lambda _: None,
    serve: Sequence[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> AsyncIterator[PrivateDaemon]:
    """A daemon with this model until the context is left; then it gets SIGTERM, and SIGKILL after ten seconds. It also
    ends if this process is killed. Call it in the main thread: Linux ties the life of the daemon to the thread.

    `model`: a file, or its name in the models folder, or None for the configured one. `settings`: a settings file
    instead of the installed one. `context`: tokens, instead of the configured size. `say` gets a line for each thing
    that is waited for, and each warning of the daemon until it answers; the lines are not cleaned for a terminal.
    `serve`: another command than this program's own. Raises the UserError with which the daemon has ended, if it
    cannot start."""
    place = find_place(settings, environment)
    config = _config(place, settings is not None)
    path = model_named(model if model is not None else config.model, place.models)
    with _own_folder() as folder:
        state = Path(folder) / "qwen-edge"
        kept = state_folder(environment)
        known = {**_measured(path, place.state), **_measured(path, kept)}
        for site, tuning in known.items():
            keep(path, site, tuning, state)
        file = Path(folder) / "settings.yaml"
        _write(file, yaml.safe_dump(msgspec.to_builtins(_private(config, path, context))))
        command = [*(serve or own_command("serve")), "-c", str(file)]
        inherited = {name: value for name, value in environment.items() if name not in _OF_A_SERVICE}
        async with started(command, environment={**inherited, "XDG_STATE_HOME": folder}) as process:
            say(f"loading {path.name}" + ("" if known else " and measuring what is fastest on this device"))
            url = await _ready(process, say)
            for site, tuning in _measured(path, state).items() - known.items():
                keep(path, site, tuning, kept)
                say(f"measured, and kept for later starts: {described(tuning)}")
            yield PrivateDaemon(url, path, process)


def model_named(chosen: Path | str | None, folder: Path) -> Path:
    """The model file: a path, or the name of a file in the models folder, with or without .gguf; None for the default
    model. Raises UserError."""
    if chosen is None:
        return find_model(None, folder)
    name, known = str(chosen), list[str]()
    with contextlib.suppress(OSError):
        if "/" not in name and "\0" not in name and not expand_path(name, "model").is_file():
            for one in (name, f"{name}.gguf"):
                if (folder / one).is_file():
                    return find_model(str(folder / one))
            known = sorted(file.stem for file in folder.glob("*.gguf"))
    if known:
        raise NotNowError(f"There is no model {name} here, nor in {folder}, which has: {', '.join(known)}.")
    return find_model(name)


def _own_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="qwen-edge-")
    except OSError as error:
        raise _no_room(error) from None


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _no_room(error) from None


def _no_room(error: OSError) -> UserError:
    return NotNowError(
        f"There is no room for the daemon's own files: {error.strerror}. Free some, or name another folder in TMPDIR."
    )


def _config(place: Place, chosen: bool) -> Config:
    """The settings of the place. The service's may be readable by root alone, or wrong: then the defaults serve."""
    try:
        return config_of(place)
    except ConfigError:
        if chosen:
            raise
        return Config()


def _private(config: Config, model: Path, context: int | None) -> Config:
    """The settings for a daemon that nobody else uses: no fixed port, no key, nothing that outlives it."""
    server, engine = config.server, config.engine
    return replace(
        config,
        model=str(model.resolve()),
        log_level="warning",
        engine=replace(engine, context=context or engine.context),
        server=ServerConfig(
            port=0, drain_seconds=1.0, answer_seconds=server.answer_seconds, wait_seconds=server.wait_seconds
        ),
        remember=RememberConfig(where="off"),
        device=replace(config.device, joules_per_hour={}),
    )


def _measured(model: Path, state: Path) -> dict[str, Tuning]:
    """What was measured of the model, by site; nothing if the folder is another user's."""
    return recall(model, state) if os.access(state, os.R_OK | os.X_OK) else {}


async def _ready(process: StartedServer, say: Callable[[str], None]) -> str:
    """Wait for the line with which the daemon says that it answers, and return its URL. Raises the daemon's error."""
    read = 0
    while True:
        ended = process.ended.done()  # before the output is read: the last line must not be missed
        lines, _, _ = process.output(read).rpartition(b"\n")
        read += len(lines) + 1 if lines else 0
        for line in lines.decode(errors="replace").splitlines():
            if match := _READY.match(line):
                return match[1]
            if match := _LOGGED.match(line):
                say(line[match.end() :])
        if ended:
            raise _error(process)
        await asyncio.sleep(_PAUSE)


def _error(process: StartedServer) -> UserError:
    """The error that has ended the daemon: the sentence on its last line, as every verb writes it."""
    last = process.output().decode(errors="replace").rstrip().rpartition("\n")[2]
    _, own, sentence = last.partition("qwen-edge: ")
    words = sentence if own else f"The daemon does not start. {process.describe_end()}"
    return _ERRORS.get(process.ended.result(), UserError)(words)
