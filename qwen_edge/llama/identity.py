"""The identity of a model file: its SHA-256, computed once for each file and then stored."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from qwen_edge.core import atomic_file
from qwen_edge.core.checksum import sha256
from qwen_edge.kv.folder import open_ours


class _Note(msgspec.Struct, frozen=True):
    """The checksum of a file, valid while its size and modification time are these."""

    size: int
    modified: int
    sha256: str


def model_sha256(model: Path, notes: Path) -> str:
    """The SHA-256 of the model file. `notes` is a JSON file of known checksums, which need not exist. Takes 0.5 s for a
    new file. Raises OSError if the model cannot be read."""
    status = model.stat()
    known = _read(notes)
    note = (known or {}).get(str(model))
    if note is None or (note.size, note.modified) != (status.st_size, status.st_mtime_ns):
        note = _Note(status.st_size, status.st_mtime_ns, sha256(model))
        if known is not None:
            _write(notes, known | {str(model): note})
    return note.sha256


def _write(notes: Path, known: dict[str, _Note]) -> None:
    """An error of the disk is ignored: the checksums can be computed again."""
    with contextlib.suppress(OSError):
        notes.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_file.replace(notes, msgspec.json.encode(known), private=True)


def _read(notes: Path) -> dict[str, _Note] | None:
    """The known checksums; None if the file is not ours, and must not be replaced."""
    try:
        with open_ours(notes) as source:
            return msgspec.json.decode(source.read() or b"", type=dict[str, _Note])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
        return None
