"""Reading what the kernel shows in /sys and /proc: small files, most of them one value each
(Documentation/filesystems/sysfs.rst in its sources).

Every sensor may be off, broken, gone or talk nonsense, each by itself and at any time: one that does not answer is a
value that is missing, never the end of the reading.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

_MOST_BYTES = 4096  # a page, which is the most that a file of sysfs holds
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR)
_OFF = (errno.EAGAIN, errno.EBUSY)  # a unit without power; the clock of cores that are switched off


def read_text(file: Path) -> str:
    """The file's content, or the first 4 KB of it. Raises OSError.

    Python's own files do not take EAGAIN for an error, which is what the sensor of a unit without power answers: they
    read on, or fail with a TypeError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MOST_BYTES).decode(errors="replace").strip("\0 \t\n")
    finally:
        os.close(descriptor)


def read_word(file: Path) -> str:
    """A name or a label; "" where there is none to be read."""
    try:
        return read_text(file)
    except OSError:
        return ""


def read_int(file: Path) -> int | None:
    """A setting that is there or is not, and is nobody's loss if it is not."""
    try:
        return int(read_word(file))
    except ValueError:
        return None


def glob_numbered(folder: Path, pattern: str) -> list[Path]:
    """What matches, in the order of its numbers: hwmon2 before hwmon10."""
    return sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))


class FileSnapshot:
    """One look at all sensors: which did not answer and why (`missing`), and whether any file was `gone`, so that it is
    time to search again for where they are."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.gone = False

    def read_number(self, name: str, file: Path | None, low: int, high: int, denied: str = "") -> int | None:
        """What the file says, if that can be true: from `low` to `high`. `denied` says more than "Permission denied".
        None for a file is what this machine does not have.

        What is switched off has no value, and nothing is missing."""
        if file is None:
            return None
        try:
            text = read_text(file)
        except OSError as error:
            self.gone |= error.errno in _GONE
            if error.errno not in _OFF:
                self.add_missing(name, denied if denied and isinstance(error, PermissionError) else error.strerror)
            return None
        try:
            value = int(text)
        except ValueError:
            self.add_missing(name, f"it says {text[:20]!r}" if text else "it says nothing")
            return None
        if low <= value <= high:
            return value
        self.add_missing(name, f"it says {text[:20]}, which cannot be")
        return None

    def add_missing(self, name: str, reason: str | None) -> None:
        """Say that a sensor gave no value. Several files of one sensor have one reason."""
        if (sentence := f"{name}: {reason}") not in self.missing:
            self.missing.append(sentence)


class Counters:
    """Counters of what should not happen, each with its file: `files` may be found anew. Used by one thread."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = dict(files)
        self._before: dict[str, int] = {}

    def increased(self, snapshot: FileSnapshot) -> list[str]:
        """Those that have risen since the last time."""
        risen = []
        for name, file in self.files.items():
            count = snapshot.read_number(f"counter of {name}", file, 0, 2**63)
            if count is not None:
                if count > self._before.get(name, count):
                    risen.append(name)
                self._before[name] = count
        return risen
