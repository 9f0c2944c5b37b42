"""The commands that install llama.cpp's Python bindings: for this Python, and in the release qwen-edge is pinned to."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import requires


def install_bindings(*options: str) -> str:
    """The pip command, with `options`. Plain `pip` could belong to another Python, and an unpinned name could install a
    release whose C structures differ from those that qwen-edge uses."""
    command = [sys.executable or "python3", "-m", "pip", "install", *options, pinned_bindings()]
    return shlex.join(command)


def rebuild_bindings(**environment: str) -> str:
    """The command that compiles the bindings again with these environment variables. It bypasses pip's cache, which
    would return a build with the old flags."""
    again = install_bindings("--force-reinstall", "--no-cache-dir", "--no-deps", "--no-binary", "llama-cpp-python")
    return " ".join([*(f"{name}={_quoted(value)}" for name, value in environment.items()), again])


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value else value


def pinned_bindings() -> str:
    """The requirement of this installation of qwen-edge, e.g. `llama-cpp-python==1.2.3`."""
    return next(line for line in requires("qwen-edge") or () if re.match(r"llama-cpp-python\b", line))
