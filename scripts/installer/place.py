"""Whether an environment may be made in its folder: by whoever runs this, and for whoever will use it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from scripts.installer.console import give_up

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))  # what ProtectHome= hides from a service


def check_place(venv: Path, root: Path) -> None:
    """The service's environment must be where the service can see it, and so must the Python that runs it."""
    unit = root / "systemd" / "qwen-edge.service"
    if not unit.is_file() or f"ExecStart={venv}/bin/" not in unit.read_text():
        return
    if home := _home(Path(sys.executable).resolve()):
        give_up(
            f"{Path(sys.executable).resolve()} lies in {home}, where the service cannot see it. Take the system's "
            f"Python: sudo /usr/bin/python3 {sys.argv[0]} {venv}"
        )
    for folder in reversed(venv.parents):
        if folder.is_dir() and not folder.stat().st_mode & 0o001:
            give_up(f"{folder} is closed to others, so to the service, too. Open it: sudo chmod a+rx {folder}")


def check_writable(venv: Path) -> None:
    """End with a sentence if the folder, or its stamp, belongs to somebody else."""
    there = next(path for path in (venv, *venv.parents) if path.exists())
    stamp = venv / ".qwen-edge"
    for path in filter(Path.exists, (there, stamp)):
        if not os.access(path, os.W_OK):
            give_up(
                f"You may not write to {path}, which belongs to {_owner(path)}. "
                f"Name another folder, or make it yours: sudo chown -R $(id -un) {there}"
            )


def _home(path: Path) -> Path | None:
    """The folder of homes that `path` lies in, if it does."""
    return next((home for home in _HOMES if home in path.parents), None)


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"
