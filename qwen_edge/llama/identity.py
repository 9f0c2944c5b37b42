"""Which model a file is: the SHA-256 of all of it, computed once for each file and then remembered."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from qwen_edge.digest import sha256


class _Note(msgspec.Struct, frozen=True):
    """What was found out about a file, as long as these are its size and time."""

    size: int
    modified: int
    sha256: str


def model_sha256(model: Path, notes: Path) -> str:
    """Of the model file. `notes` is a JSON file with those known already, which need not be there. Half a second for
    one that is new. Raises OSError if the model cannot be read."""
    status = model.stat()
    known = _read(notes)
    note = known.get(str(model))
    if note is None or (note.size, note.modified) != (status.st_size, status.st_mtime_ns):
        note = _Note(status.st_size, status.st_mtime_ns, sha256(model))
        draft = notes.with_suffix(".new")
        with contextlib.suppress(OSError):  # it can be computed again
            notes.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(known | {str(model): note}))
            draft.replace(notes)
    return note.sha256


def _read(notes: Path) -> dict[str, _Note]:
    try:
        return msgspec.json.decode(notes.read_bytes(), type=dict[str, _Note])
    except (OSError, msgspec.MsgspecError):
        return {}
