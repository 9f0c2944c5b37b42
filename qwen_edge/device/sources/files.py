"""Reads files of /sys and /proc, most of which hold one value (Documentation/filesystems/sysfs.rst in the kernel's
sources).

Any sensor may be off, broken, gone or return nonsense, at any time. A sensor without a valid value is reported as
missing; it never ends the reading.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

_MOST_BYTES = 4096  # a page: files of sysfs are not larger
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR)
_OFF = (errno.EAGAIN, errno.EBUSY)  # a unit without power; the clock of a core that is offline


def read_text(file: Path) -> str:
    """The first 4 KB of the file, without surrounding white space. Raises OSError.

    Python's own file objects do not raise EAGAIN, which the sensor of a unit without power returns: they read on, or
    fail with a TypeError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MOST_BYTES).decode(errors="replace").strip("\0 \t\n")
    finally:
        os.close(descriptor)


def read_word(file: Path) -> str:
    """The content of a file with a name or a label; "" if it cannot be read."""
    try:
        return read_text(file)
    except OSError:
        return ""


def read_int(file: Path) -> int | None:
    """The whole number in a file; None if it cannot be read or holds none."""
    try:
        return int(read_word(file))
    except ValueError:
        return None


def glob_numbered(folder: Path, pattern: str) -> list[Path]:
    """The matching paths, ordered by their numbers: hwmon2 before hwmon10."""
    return sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))


class FileSnapshot:
    """One reading of all sensors. `missing`: those without a valid value, with the reason. `gone`: a file does not
    exist any more, so the caller should search for the sensors again."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.gone = False

    def read_number(self, name: str, file: Path | None, low: int, high: int, denied: str = "") -> int | None:
        """The number in the file, if it lies between `low` and `high`, else None. `file` None: this machine does not
        have the sensor. `denied`: the reason to give in place of "Permission denied".

        A unit that is switched off has no value, but does not count as missing."""
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
            self.add_missing(name, f"{text[:20]!r} is not a number" if text else "the file is empty")
            return None
        if low <= value <= high:
            return value
        self.add_missing(name, f"{text[:20]} is out of range")
        return None

    def add_missing(self, name: str, reason: str | None) -> None:
        """Note that a sensor gave no value. The same reason for several files of a sensor is noted once."""
        if (sentence := f"{name}: {reason}") not in self.missing:
            self.missing.append(sentence)


class Counters:
    """Counters of events, by name, each with its file; `files` may be extended. Used by one thread."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = dict(files)
        self._before: dict[str, int] = {}

    def increased(self, snapshot: FileSnapshot) -> list[str]:
        """The names of the counters that have increased since the last call."""
        risen = []
        for name, file in self.files.items():
            count = snapshot.read_number(f"counter of {name}", file, 0, 2**63)
            if count is not None:
                if count > self._before.get(name, count):
                    risen.append(name)
                self._before[name] = count
        return risen
