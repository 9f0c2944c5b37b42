"""Reads a file that a person has named. What is wrong with it is that person's mistake."""

from __future__ import annotations

from pathlib import Path

from qwen_edge.core.errors import UserError
from qwen_edge.core.regular_file import regular_only

_MOST_BYTES = 10_000_000  # far more than questions, functions, a schema or a conversation have


def read_bytes(file: Path) -> bytes:
    """The content, of at most 10 MB. `~` stands for the home folder. Raises UserError."""
    try:
        with open(file.expanduser(), "rb", opener=regular_only) as opened:
            data = opened.read(_MOST_BYTES + 1)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no such home folder; ValueError: a NUL
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(data) > _MOST_BYTES:
        raise UserError(f"{file} is larger than {_MOST_BYTES // 1_000_000} MB, so it is not what is meant.")
    return data
