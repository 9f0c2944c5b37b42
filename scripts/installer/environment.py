"""Makes a virtual environment, and says whether one that is there can be used."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from scripts.installer.console import give_up
from scripts.installer.processes import end, workshop

OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
_INTERPRETER = re.compile(r"""^(?:#!|'{3}exec' )"?(/.*?/bin)/python[^/]*$""", re.MULTILINE)


def make_venv(venv: Path, version: str | None) -> Path:
    """The interpreter in `venv`, which is made unless it is there, for this Python, and complete.

    A virtual environment is bound to the Python that made it: with another one nothing in it would be found.
    """
    python = venv / "bin" / "python"
    if version == OURS and has(python, "pip"):
        return python
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        give_up(f"Python's venv is missing. Install it: sudo apt install python{OURS}-venv")
    if (venv / "pyvenv.cfg").is_file():
        why = {None: "the Python it was made with is gone", OURS: "it has no pip"}
        told = (
            "it was copied from another place"
            if strays(venv)
            else why.get(version, f"it was made with Python {version}")
        )
        print(f"{venv} cannot be used: {told}", flush=True)
    elif venv.is_dir() and any(venv.iterdir()):
        give_up(f"{venv} holds other things than a virtual environment. Name another folder.")
    print(f"making {venv} with Python {sys.version.split()[0]}", flush=True)
    if _create(venv):
        give_up(f"{venv} could not be made: Python's complaint is above.")
    return python


def strays(venv: Path) -> bool:
    """Whether its programs name the interpreter of another place: it was copied or moved, and would run that one."""
    try:
        head = (venv / "bin" / "pip").read_text(errors="replace")[:1000]
    except OSError:
        return False
    named = _INTERPRETER.search(head)
    try:
        return named is not None and not Path(named[1]).samefile(venv / "bin")
    except OSError:
        return True


def version_of(python: Path) -> str | None:
    """ "3.11", as the interpreter itself says; None if it does not run (the Python it was made from is gone)."""
    tell = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        told = subprocess.run([python, "-c", tell], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return told.stdout.strip() if told.returncode == 0 else None


def has(python: Path, module: str) -> bool:
    """Whether this Python has the module."""
    found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", found], check=False, start_new_session=True).returncode == 0


def _create(venv: Path) -> int:
    """Python's exit code. Ctrl-C reaches neither it nor the pip that it starts, so neither shows a traceback."""
    command = [sys.executable, "-m", "venv", "--clear", str(venv)]
    with workshop() as folder:
        environment = {**os.environ, "TMPDIR": str(folder)}
        with subprocess.Popen(command, start_new_session=True, env=environment) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:
                end(process, signal.SIGKILL)
                raise
