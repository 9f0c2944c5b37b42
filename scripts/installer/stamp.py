"""What was installed by which description: the stamp in an environment, which makes a second run do nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

SOURCES = ("qwen_edge", "docs", "setup.cfg", "pyproject.toml", "README.md", "README.zh.md", "CHANGELOG.md", "LICENSE")


def described(root: Path, *, linked: bool) -> str:
    """Changes when what is to be installed changes: what is linked to changes by itself."""
    names = ("setup.cfg", "pyproject.toml") if linked else SOURCES
    sources = sorted(file for name in names for file in files(root / name))
    parts = (str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() for file in sources)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def files(path: Path) -> list[Path]:
    """The file, or all files in the folder, without bytecode."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return [path] if path.is_file() else []


def installed_by(stamp: Path, described: str) -> set[str] | None:
    """The extras that were installed by this same description; None if nothing was."""
    try:
        noted = json.loads(stamp.read_text())
        return set(noted["extras"]) if noted["described"] == described else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def noted(stamp: Path) -> set[str]:
    """The extras that were installed by any description."""
    try:
        return set(json.loads(stamp.read_text())["extras"])
    except (OSError, ValueError, TypeError, KeyError):
        return set()
