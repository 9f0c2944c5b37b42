"""Default locations of settings, state and models: for the service, and for a daemon that a person starts."""

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
    """The locations of one daemon: its settings (None: no file, all defaults), its state and its models.

    `service`: whether it is the service of this machine. The service runs `program` (None if its unit does not say) in
    the folder `working` with `options` (such as `--model`), which override the settings."""

    settings: Path | None
    state: Path
    models: Path
    service: bool = False
    program: Path | None = None
    working: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def words(self, model: Path | None = None) -> str:
        """One line for a person: which daemon it is, and its locations; with the model, if given."""
        whose = "the service" if self.service else "a daemon that you run yourself"
        settings = f"settings {self.settings}" if self.settings else "default settings"
        return f"{whose}: {settings}, state folder {self.state}" + (f", model {model}" if model else "")

    def check(self, verb: str, *, writing: bool = False) -> None:
        """Raises UserError if this process cannot read the state folder (or write to it, with `writing`), before any
        work is done in vain."""
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
        except OSError as error:  # circular links, or a failing disk
            raise UserError(f"{self.state} cannot be used: {error.strerror}.") from None
        there = next((path for path in (self.state, *self.state.parents) if _there(path)), Path("/"))
        if writing and not os.access(there, os.W_OK | os.X_OK):
            if os.statvfs(there).f_flag & os.ST_RDONLY:
                raise UserError(f"{there} is on a file system that is mounted read-only. Mount it for writing.")
            raise UserError(f"You may not write to {self.state}. {self._instead(verb)}")

    def _instead(self, verb: str) -> str:
        if not self.service:
            return (
                f"Make the folder yours, or choose another with XDG_STATE_HOME. To see its owner: ls -ld {self.state}"
            )
        return (
            f"The folder is the service's: sudo {self.program or 'qwen-edge'} {verb}. "
            "For a daemon that you run yourself, give its settings with -c."
        )


def find_place(file: Path | None, environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Place:
    """The locations of the daemon that a command acts on. `file`: the settings file of the command line, if any.

    That daemon is the service of this machine, if a service is installed and `file` is None; else the daemon that this
    person starts. Inside a service the environment names the locations, as for the daemon itself.
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
    """The settings file that the service's command line names, else the one in its configuration folder."""
    named = service.options.get("--config") or f"/etc/{service.configuration}/qwen-edge.yaml"
    return under(root, service.working / named)


def _there(path: Path) -> bool:
    """Whether the path exists. A link counts even if only root can follow it, as with DynamicUser= services."""
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
    """Give a file that root has created to the owner of its folder: the service's user must be able to replace it."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # the file system has no owners
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
    """The folder of measurements and remembered conversations: the service's state folder, else the user's."""
    if state := environment.get("STATE_DIRECTORY"):  # set by systemd
        return Path(state)
    data = environment.get("XDG_STATE_HOME") or _home("XDG_STATE_HOME") / ".local" / "state"
    return Path(data) / "qwen-edge"


def _home(instead: str) -> Path:
    try:
        return Path.home()
    except RuntimeError:  # the user has no name (in a container), and $HOME is not set
        raise ConfigError(f"This user has no home folder to keep anything in: set HOME or {instead}.") from None


def memory_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """A private folder in memory, whose content is lost when the system stops."""
    if run := environment.get("RUNTIME_DIRECTORY") or environment.get("XDG_RUNTIME_DIR"):
        return Path(run) / "qwen-edge"
    return Path("/dev/shm") / f"qwen-edge-{os.getuid()}"  # noqa: S108 - used only if nobody else may write there


def must_be_text(path: Path, what: str) -> Path:
    """Return the path. Raises UserError if it is not UTF-8 text after links are resolved: messages to the engine, and
    JSON, could not contain it."""
    real = ""
    with contextlib.suppress(ValueError):  # of a zero byte: nothing is there, as whoever opens it tells
        real = os.path.realpath(path)
    try:
        f"{path}{real}".encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{what} {path} cannot be used: its path is not UTF-8 text. Rename the part that is not, or choose another "
            "path."
        ) from None
    return path


def expand_path(text: str, what: str) -> Path:
    """The path that a person has written, with a leading ~ replaced by the home folder.

    Raises ConfigError for the home of an unknown user and for a text that no path can be (a NUL character, half of a
    surrogate pair); `what` names the setting."""
    try:
        if "\0" in os.fsdecode(os.fsencode(text)):
            raise ConfigError(f"{what}: {text!r} is no path: it holds a NUL character. Write the path without it.")
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise ConfigError(f"{what}: {text!r} is no path: it holds half a character. Write the path anew.") from None
    except RuntimeError:  # raised by expanduser
        raise ConfigError(
            f"{what}: {text} begins with the home folder of a user that is not known here. Write the whole path."
        ) from None


def find_model(chosen: str | None, folder: Path | None = None) -> Path:
    """The model file to serve: the chosen file, else the default one, else the only one in the models folder.

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
