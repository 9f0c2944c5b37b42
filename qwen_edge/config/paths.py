"""Where things are kept when nobody says otherwise, by a service and by a daemon that a person runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qwen_edge.config.unit import Unit, read_unit, under
from qwen_edge.core.errors import ConfigError, NotNowError, UserError

DEFAULT_MODEL = "qwen3-0.6b-q4_k_m.gguf"


@dataclass(frozen=True)
class Place:
    """Where one daemon has its settings (None: no file, all are defaults), what it has measured, and its models.

    `service`: it is the service of this machine, which runs `program` (None if its unit does not say) in the folder
    `working` with `options` (`--model` and so on, which win over the settings)."""

    settings: Path | None
    state: Path
    models: Path
    service: bool = False
    program: Path | None = None
    working: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def words(self, model: Path | None = None) -> str:
        """One line: whose it is, and where; with the model, if it is told."""
        whose = "the service" if self.service else "a daemon that you run yourself"
        settings = f"settings {self.settings}" if self.settings else "default settings"
        return f"{whose}: {settings}, state folder {self.state}" + (f", model {model}" if model else "")

    def check(self, verb: str, *, writing: bool = False) -> None:
        """Raises UserError if this process may not read the state folder, or not write to it: later is too late."""
        try:
            next(self.state.iterdir(), None)
        except PermissionError:
            raise UserError(f"You may not read {self.state}. {self._instead(verb)}") from None
        except FileNotFoundError:
            if self.state.is_symlink():
                raise UserError(
                    f"{self.state} is a link to {self.state.readlink()}, which is not there. Make that folder, or "
                    f"remove the link: sudo rm {self.state}"
                ) from None
        except NotADirectoryError:
            file = next(path for path in (self.state, *self.state.parents) if path.exists())
            raise UserError(f"{file} is a file, and should be a folder. Move the file away.") from None
        except OSError as error:  # links in a circle, a disk that fails
            raise UserError(f"{self.state} cannot be used: {error.strerror}.") from None
        there = next((path for path in (self.state, *self.state.parents) if _there(path)), Path("/"))
        if writing and not os.access(there, os.W_OK | os.X_OK):
            if os.statvfs(there).f_flag & os.ST_RDONLY:
                raise UserError(f"{there} is on a file system that is mounted read-only. Mount it for writing.")
            raise UserError(f"You may not write to {self.state}. {self._instead(verb)}")

    def _instead(self, verb: str) -> str:
        if not self.service:
            return f"Make it yours, or choose another with XDG_STATE_HOME: ls -ld {self.state}"
        return (
            f"It is the service's: sudo {self.program or 'qwen-edge'} {verb}. "
            "For a daemon that you run yourself, give its settings with -c."
        )


def find_place(file: Path | None, environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Place:
    """The place of the daemon that a command is about; `file` are the settings that the command line names, if any.

    It is the service of this machine, if one is installed and no other settings are named; else the daemon that this
    person runs. Inside a service the environment says where, as for the daemon itself.
    """
    unit = read_unit(root)
    service = unit or Unit()
    settings = _settings_of(service, root)
    inside = environment.get("STATE_DIRECTORY") or environment.get("CONFIGURATION_DIRECTORY")
    state = under(root, f"/var/lib/{service.state}")
    installed = unit is not None or (_there(settings) and _there(state))
    if inside or not installed or not (file is None or _same(file, settings)):
        own = Path(environment.get("CONFIGURATION_DIRECTORY", "/nonexistent")) / "qwen-edge.yaml"
        settings_file = file or (own if own.is_file() else None)
        return Place(settings_file, state_folder(environment), models_folder(environment))
    chosen = service.environment.get("QWEN_EDGE_MODELS")
    models = models_folder(
        {
            "STATE_DIRECTORY": str(state),
            "QWEN_EDGE_MODELS": environment.get("QWEN_EDGE_MODELS")
            or (str(under(root, service.working / chosen)) if chosen else ""),
        }
    )
    used = settings if "--config" in service.options or _there(settings) else None
    return Place(used, state, models, True, service.program, under(root, service.working), service.options)


def _settings_of(service: Unit, root: Path) -> Path:
    """The file that the service's command line names, else the one in its configuration folder."""
    named = service.options.get("--config") or f"/etc/{service.configuration}/qwen-edge.yaml"
    return under(root, service.working / named)


def _there(path: Path) -> bool:
    """Whether something is there, be it a link to where only root may look, as a service's are (DynamicUser=)."""
    try:
        path.lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def hand_over(path: Path) -> None:
    """Give what root has made to whoever has its folder: a service's user must be able to read and to replace it."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a file system without owners
            owner = path.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def models_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """$QWEN_EDGE_MODELS, else `models` in the service's state folder, else in the user's data folder."""
    if chosen := environment.get("QWEN_EDGE_MODELS"):
        return Path(chosen)
    if state := environment.get("STATE_DIRECTORY"):  # set by systemd
        return Path(state) / "models"
    data = environment.get("XDG_DATA_HOME") or _home("XDG_DATA_HOME") / ".local" / "share"
    return Path(data) / "qwen-edge" / "models"


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """What the daemon has found out: the service's state folder, else the user's."""
    if state := environment.get("STATE_DIRECTORY"):  # set by systemd
        return Path(state)
    data = environment.get("XDG_STATE_HOME") or _home("XDG_STATE_HOME") / ".local" / "state"
    return Path(data) / "qwen-edge"


def _home(instead: str) -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a container's user without a name, and no $HOME
        raise ConfigError(f"This user has no home folder to keep anything in: set HOME or {instead}.") from None


def memory_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """What is forgotten when the system stops: a folder in memory, ours alone."""
    if run := environment.get("RUNTIME_DIRECTORY") or environment.get("XDG_RUNTIME_DIR"):
        return Path(run) / "qwen-edge"
    return Path("/dev/shm") / f"qwen-edge-{os.getuid()}"  # noqa: S108 - used only if nobody else may write there


def must_be_text(path: Path, what: str) -> Path:
    """The same path. Raises UserError if it is not UTF-8 text, links followed: neither a message to the engine nor JSON
    can name it."""
    real = ""
    with contextlib.suppress(ValueError):  # of a zero byte: nothing is there, as whoever opens it tells
        real = os.path.realpath(path)
    try:
        f"{path}{real}".encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{what} {path} cannot be used: its path is not UTF-8 text. Rename what is not, or choose another."
        ) from None
    return path


def expand_path(text: str, what: str) -> Path:
    """The path that a person has written, with the home folder in place of a ~ at its start.

    Raises ConfigError for the home of an unknown user and for a text that no path can be (a NUL character, half of a
    surrogate pair); `what` names the setting."""
    try:
        if "\0" in os.fsdecode(os.fsencode(text)):
            raise ConfigError(f"{what}: {text!r} is no path: it holds a NUL character. Write the path without it.")
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise ConfigError(f"{what}: {text!r} is no path: it holds half a character. Write the path anew.") from None
    except RuntimeError:  # of expanduser
        raise ConfigError(
            f"{what}: {text} begins with the home folder of a user that is not known here. Write the whole path."
        ) from None


def find_model(chosen: str | None, folder: Path | None = None) -> Path:
    """The model file to serve: the one chosen, else the default one, else the only one in the models folder.

    Raises NotNowError if there is none, UserError if there are several or its path is not UTF-8 text, ConfigError if
    `chosen` is no path."""
    return must_be_text(_find_model(chosen, folder), "The model file")


def _find_model(chosen: str | None, folder: Path | None) -> Path:
    folder = folder or models_folder()
    try:
        if chosen is not None:
            path = must_be_text(expand_path(chosen, "model"), "The model file")
            if not path.is_file():
                raise NotNowError(f"There is no model at {path}. Make one: qwen-edge convert -o {path}")
            return path
        if (default := folder / DEFAULT_MODEL).is_file():
            return default
        found = sorted(folder.glob("*.gguf"))
    except OSError as error:
        raise NotNowError(f"Cannot look for a model: {error}.") from None
    if not found:
        raise NotNowError(f"There is no model in {folder}. Make one: qwen-edge convert -o {folder / DEFAULT_MODEL}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder} holds several models ({names}): say which with --model.")
    return found[0]
