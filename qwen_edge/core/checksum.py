"""Which bytes a file holds, in 64 letters."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK = 1 << 20


def sha256(file: Path) -> str:
    """Read in pieces; hashing leaves the interpreter lock to others. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
