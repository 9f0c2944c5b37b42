"""The SHA-256 checksum of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK = 1 << 20


def sha256(file: Path) -> str:
    """The checksum in hexadecimal. Reads the file in pieces; hashing releases the interpreter lock. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
