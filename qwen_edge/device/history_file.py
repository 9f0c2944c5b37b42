"""The device's history in files: a line of JSON for each minute, and two files, so that the older half can be dropped.

A line that is torn, or of another program or release, is passed over. Nothing is dropped because of its time: a board
without a battery boots in the past, and its clock is set only later. Used on one thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

_MOST_BYTES = 400_000  # of a file: 3 days and some hours
_NEW, _OLD = "minutes.jsonl", "minutes.old.jsonl"
_LATEST = 1e11  # a Unix time that is none
_LARGEST = 2**53  # the largest number that every client can read


class Reading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the device is at one time, or was on average over some time. `celsius`: the hottest zone, and of a longer
    time its highest value. `target`: the temperature to which the governor holds the device. `duty`: 0 to 1. `hertz`:
    the clock of the processor. `memory`: bytes of the daemon and its engine. None: not known."""

    celsius: float | None = None
    target: float | None = None
    watts: float | None = None
    duty: float | None = None
    hertz: float | None = None
    tokens_per_second: float = 0.0
    pending: int = 0
    memory: int | None = None


class Sample(Reading, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reading and its Unix time, in seconds."""

    at: float


class _Line(Sample, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """A line: the values without their names."""


_line = msgspec.json.Decoder(_Line)


class HistoryFile:
    """The files of one folder, of which one daemon at a time writes."""

    def __init__(self, folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        """Nothing is opened before the first use. `most_bytes`: of each of both files."""
        self._folder, self._most = folder, most_bytes
        self._lock: int | None = None

    def append(self, samples: Sequence[Sample]) -> None:
        """Write the samples in one go, behind those before. Raises OSError; then nothing of them is in the file, unless
        the disk refuses that, too."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        data = b"".join(msgspec.json.encode(msgspec.structs.astuple(one)) + b"\n" for one in samples)
        if _size(self._folder / _NEW) + len(data) > self._most:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / _NEW).replace(self._folder / _OLD)
        handle = os.open(self._folder / _NEW, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "it is no ordinary file", str(self._folder / _NEW))
            before = os.fstat(handle).st_size
            is_torn = before > 0 and os.pread(handle, 1, before - 1) != b"\n"
            self._write(handle, b"\n" * is_torn + data[-self._most :], before)
        finally:
            os.close(handle)

    def read(self) -> list[Sample]:
        """All samples in the files, in the order in which they were written. Raises OSError."""
        return [sample for name in (_OLD, _NEW) for sample in self._samples(self._folder / name)]

    def close(self) -> None:
        """Let another daemon write in the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write(self, handle: int, data: bytes, before: int) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, before)
            raise

    def _take_lock(self) -> None:
        """Raises OSError if another process writes in this folder. The lock is held until `close`."""
        if self._lock is not None:
            return
        handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                os.close(handle)
                raise OSError(errno.EWOULDBLOCK, "another daemon keeps its history there", str(self._folder)) from None
            # network file systems lock no folders: there two daemons may write, line by line
        self._lock = handle

    def _samples(self, file: Path) -> Iterator[Sample]:
        try:
            with open(file, "rb", opener=_open_without_waiting) as source:
                source.seek(max(0, os.fstat(source.fileno()).st_size - self._most))
                lines = source.read(self._most).splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError, ValueError):
                sample = Sample(**msgspec.structs.asdict(_line.decode(line)))
                if 0 < sample.at < _LATEST and all(map(_is_number, msgspec.structs.astuple(sample))):
                    yield sample


def _is_number(value: float | None) -> bool:
    """Whether a value can be shown: JSON also has numbers that are too large for the clients, and NaN is no number."""
    return value is None or abs(value) <= _LARGEST


def _open_without_waiting(path: str, flags: int) -> int:
    """A pipe that somebody has put there would wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
