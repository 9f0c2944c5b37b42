"""The SHA-256 checksum of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1 << 20


def sha256(file: Path, advance: Callable[[int], object] = lambda _: None) -> str:
    """The checksum in hexadecimal. Reads the file in pieces, and calls `advance` with the bytes of each; hashing
    releases the interpreter lock. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()
