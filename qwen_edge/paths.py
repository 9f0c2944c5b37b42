"""Where things are kept when nobody says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from qwen_edge.errors import NotNowError, UserError

DEFAULT_MODEL = "qwen3-0.6b-q4_k_m.gguf"


def models_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """$QWEN_EDGE_MODELS, else `models` in the service's state folder, else in the user's data folder."""
    if chosen := environment.get("QWEN_EDGE_MODELS"):
        return Path(chosen)
    if state := environment.get("STATE_DIRECTORY"):  # set by systemd
        return Path(state) / "models"
    data = environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "qwen-edge" / "models"


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """What the daemon has found out: the service's state folder, else the user's."""
    if state := environment.get("STATE_DIRECTORY"):  # set by systemd
        return Path(state)
    data = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(data) / "qwen-edge"


def memory_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """What is forgotten when the system stops: a folder in memory, ours alone."""
    if run := environment.get("RUNTIME_DIRECTORY") or environment.get("XDG_RUNTIME_DIR"):
        return Path(run) / "qwen-edge"
    return Path("/dev/shm") / f"qwen-edge-{os.getuid()}"  # noqa: S108 - used only if nobody else may write there


def find_model(chosen: str | None, folder: Path | None = None) -> Path:
    """The model file to serve: the one chosen, else the default one, else the only one in the models folder.

    Raises NotNowError if there is none, UserError if there are several."""
    folder = folder or models_folder()
    try:
        if chosen is not None:
            path = Path(chosen).expanduser()
            if not path.is_file():
                raise NotNowError(f"There is no model at {path}. Make one: qwen-edge convert -o {path}")
            return path
        if (default := folder / DEFAULT_MODEL).is_file():
            return default
        found = sorted(folder.glob("*.gguf"))
    except OSError as error:
        raise NotNowError(f"Cannot look for a model: {error}.") from None
    if not found:
        raise NotNowError(f"There is no model in {folder}. Make one: qwen-edge convert")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder} holds several models ({names}): say which with --model.")
    return found[0]
