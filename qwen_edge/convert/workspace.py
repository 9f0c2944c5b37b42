"""The work folder of a conversion: locked, resumable, and removed when it is not needed any more.

`<output>.work/` is beside the output, on the same file system, so that the finished file can be renamed into place.
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen_edge.core import atomic_file
from qwen_edge.core.errors import ConversionError

_ROOM_TO_SPARE = 64 << 20  # bytes: a file system has a little less space than it reports


def check_room(work: Path, needed: int) -> None:
    """Raise ConversionError now rather than after minutes, if the disk lacks space. `needed`: bytes in all, including
    those already in `work`."""
    there = sum(file.stat().st_size for file in work.iterdir())
    needed += _ROOM_TO_SPARE - there
    free = shutil.disk_usage(work).free
    if free < needed:
        raise ConversionError(
            f"Not enough room in {work.parent}: the conversion needs {needed / 1e9:.2f} GB, "
            f"{free / 1e9:.2f} GB are free. Make room, or choose another disk with -o."
        )


@contextmanager
def work_folder(output: Path) -> Iterator[Path]:
    """Create and lock `<output>.work`. It is removed after success or an error, and kept after an interrupt."""
    work = output.with_name(output.name + ".work")
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        raise ConversionError(
            f"Cannot write to {error.filename}: {error.strerror}. Choose another place with -o."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConversionError(f"Another conversion is writing {output}. Wait for it, or stop it.") from None
        except OSError as error:  # a file system without locks
            raise ConversionError(_explain(error, output)) from error
        try:
            yield work
        except ConversionError:
            _remove(work)
            raise
        except OSError as error:
            _remove(work)
            raise ConversionError(_explain(error, output)) from error
        _remove(work)


def _explain(error: OSError, output: Path) -> str:
    """The message for an OSError during the conversion."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk of {output.parent} is full. Make room, or choose another disk with -o."
    return f"{error.filename or output.parent}: {error.strerror or error}. Fix that, or choose another place with -o."


def _remove(work: Path) -> None:
    """Remove as much as the disk allows: its error is already reported, and must not end in a traceback."""
    shutil.rmtree(work, ignore_errors=True)


class Journal:
    """The finished stages of an interrupted conversion, with their seconds; empty if the inputs have changed since."""

    def __init__(self, file: Path, fingerprint: str) -> None:
        self._file = file
        self._fingerprint = fingerprint
        try:
            noted = json.loads(file.read_bytes())
        except (FileNotFoundError, ValueError):
            noted = {}
        self.seconds: dict[str, float] = noted["seconds"] if noted.get("fingerprint") == fingerprint else {}

    def has(self, stage: str, file: Path) -> bool:
        return stage in self.seconds and file.is_file()

    @contextmanager
    def timed(self, stage: str, file: Path) -> Iterator[None]:
        """A stage that writes `file`; it is recorded as done only after the file has been synced."""
        started = time.monotonic()
        yield
        atomic_file.sync(file)
        self.seconds[stage] = time.monotonic() - started
        noted = json.dumps({"fingerprint": self._fingerprint, "seconds": self.seconds}).encode()
        atomic_file.replace(self._file, noted, durable=True)
