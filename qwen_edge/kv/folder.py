"""The folder of conversations: locked while the engine lives, made again if somebody deletes it.

What the file system refuses (a card that was remounted read-only, a full disk, no descriptors) is logged once, until it
works again. Until then conversations are not kept, but no request fails and the engine does not stop. Other people's
files may lie beside ours and are left alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from qwen_edge.core.regular_file import regular_only

log = logging.getLogger(__name__)

_TRY_AGAIN = 0.05  # seconds
_SPACE = 64 << 20  # bytes that are left free for others
_FREE = "Free some room, or set remember.folder to a folder on another disk"
_REMOUNT = "Look at the disk (`dmesg`, `mount`): a card that fails is remounted read-only. Replace it or mount it again"
_ADVICE = {
    errno.EROFS: _REMOUNT,
    errno.EIO: _REMOUNT,
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EACCES: "Give the folder back to the user that qwen-edge runs as",
    errno.EPERM: "Give the folder back to the user that qwen-edge runs as (or `chattr -i`)",
    errno.EMFILE: "Raise the limit of open files (LimitNOFILE=)",
    errno.ENFILE: "The system has too many open files",
    errno.ENOENT: "It is made again when something is to be written",
}


class Folder:
    """A folder that no other qwen-edge uses meanwhile. Used by the thread that opens it, then by the disk tier's
    writer."""

    def __init__(self, path: Path, patience: float = 0.0) -> None:
        """Waits for a folder that another qwen-edge uses, no longer than `patience` seconds. Raises OSError for a
        folder that cannot be used."""
        self.path = path
        self.renewals = 0  # how often it has been made again, with nothing in it
        self._told = set[str]()
        _make_private(path)
        until = time.monotonic() + patience
        while not (lock := _locked(path)):
            if time.monotonic() >= until:
                raise OSError(f"{path} is used by another qwen-edge")
            time.sleep(_TRY_AGAIN)
        self._lock = lock

    def close(self) -> None:
        """Let others use the folder."""
        self._lock.close()

    def renew(self) -> None:
        """Make the folder again, and lock it, if it has gone. Raises OSError."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat((self.path / "lock").lstat(), os.fstat(self._lock.fileno())):
                return
        _make_private(self.path)
        lock = _locked(self.path)
        if not lock:
            raise OSError(f"{self.path} is used by another qwen-edge")
        self._lock.close()
        self._lock = lock
        self.renewals += 1

    def list(self) -> list[Path]:
        """All files in the folder, the last used ones at the end. Raises OSError."""
        found = list[tuple[float, Path]]()
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # it has just gone
                    found.append((entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)))
        return [path for _, path in sorted(found)]

    def has_space(self, size: int) -> bool:
        """Whether `size` bytes can be written with some left for others. Raises OSError."""
        space = os.statvfs(self.path)
        return space.f_bavail * space.f_frsize >= size + _SPACE

    def unlink(self, files: Iterable[Path]) -> None:
        """Delete these files, as far as the file system lets us."""
        for file in files:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                self.tell("files that are not needed any more cannot be deleted", error)

    def touch(self, files: Iterable[Path]) -> None:
        """Set the time of these files to now, so that their last use is known after a restart."""
        for file in files:
            with contextlib.suppress(OSError):  # on a read-only card they keep their times
                os.utime(file)

    def tell(self, what: str, error: Exception) -> None:
        """Warn that something does not work: once, until `works` is called for it."""
        if what not in self._told:
            self._told.add(what)
            number = error.errno if isinstance(error, OSError) else None
            advice = _ADVICE.get(number or 0, "qwen-edge goes on without it")
            log.warning("%s: %s: %s. %s.", self.path, what, error, advice)

    def works(self, what: str) -> None:
        """It works now: the next failure is logged again."""
        self._told.discard(what)


def open_ours(path: Path) -> FileIO:
    """Open an ordinary file for reading, unbuffered. Raises OSError, also for a link or a pipe, which might block."""
    return FileIO(path, "rb", opener=lambda name, flags: regular_only(name, flags | os.O_NOFOLLOW))


def _make_private(folder: Path) -> None:
    """Make the folder, if need be. Nobody else may read conversations, and files that others may have written must not
    be loaded. Raises OSError for a folder in which others may write."""
    for parent in [*reversed(folder.parents), folder]:
        parent.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise OSError(f"others may write to {folder}")


def _locked(folder: Path) -> FileIO | None:
    """A lock of the folder, held until it is closed or the process ends; None if another process holds it. Nothing is
    written to the lock file, as it may be anybody's. Raises OSError."""
    try:
        return _flocked(folder / "lock", os.O_RDONLY)  # a disk can be remounted read-only while it is held
    except OSError as error:
        if error.errno == errno.EBADF:  # NFS locks what is open for writing
            return _flocked(folder / "lock", os.O_RDWR)
        if error.errno == errno.EWOULDBLOCK:
            return None
        raise


def _flocked(file: Path, access: int) -> FileIO:
    flags = access | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    lock = FileIO(os.open(file, flags, 0o600), "rb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock
