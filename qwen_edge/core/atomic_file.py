"""Replaces a file atomically: a reader, and the next start after a power cut, finds the old content or the new one.

The new content is written to a draft beside the file, and the draft is renamed onto the file. If a step fails, the
draft is deleted and the file is unchanged.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path

_RANDOM = 8  # bytes in the name of a draft: two processes that write the same file never share a draft


@contextlib.contextmanager
def replacing(
    file: Path, *, private: bool = False, durable: bool = False, draft: str | None = None
) -> Iterator[BufferedWriter]:
    """Open a draft to write to; when the block ends without an exception, the draft replaces `file`. Raises OSError.

    `private`: only this user may read the file, whatever the umask is.
    `durable`: draft and folder are synced, which takes up to seconds on a slow card. Without it, a power cut soon
    afterwards may leave an empty file or the old one; readers must expect that.
    `draft`: the draft's name, which no other file in the folder may have; by default a random one. The draft's path is
    the `name` of the opened file.
    """
    path = file.with_name(draft or f".{file.name}.{secrets.token_hex(_RANDOM)}.new")
    with open(path, "xb", opener=_open_private if private else None) as out:
        try:
            yield out
            sync_written(out) if durable else out.flush()
            out.close()  # some file systems report a failed write only now
            path.replace(file)
            if durable:
                sync(file.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise


def replace(file: Path, data: bytes, *, private: bool = False, durable: bool = False) -> None:
    """Replace `file` by one that holds `data`; `private` and `durable` as for `replacing`. Raises OSError."""
    with replacing(file, private=private, durable=durable) as out:
        out.write(data)


def sync_written(out: BufferedWriter) -> None:
    """Sync the file, so that what has been written to `out` survives a power cut. Raises OSError."""
    out.flush()
    os.fsync(out.fileno())


def sync(path: Path) -> None:
    """Sync a file, so that its content survives a power cut; or a folder, for its list of names. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
