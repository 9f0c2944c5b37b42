"""What to type to get llama.cpp's bindings: with the Python that runs us, and in the release that we are built for."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import requires


def install_bindings(*options: str) -> str:
    """The command, with pip's `options`. A bare `pip` could belong to another Python, and a bare name could bring a
    release whose C structures are not those we know."""
    command = [sys.executable or "python3", "-m", "pip", "install", *options, pinned_bindings()]
    return shlex.join(command)


def rebuild_bindings(**environment: str) -> str:
    """The command that compiles them anew with these environment variables: pip keeps what it has built, and with it
    the flags."""
    again = install_bindings("--force-reinstall", "--no-cache-dir", "--no-deps", "--no-binary", "llama-cpp-python")
    return " ".join([*(f"{name}={_quoted(value)}" for name, value in environment.items()), again])


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value else value


def pinned_bindings() -> str:
    """`llama-cpp-python==1.2.3`, as this installation of qwen-edge asks for it."""
    return next(line for line in requires("qwen-edge") or () if re.match(r"llama-cpp-python\b", line))
