"""A folder for one run, and the end of the processes that a run has started: what is interrupted leaves nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PREFIX = "qwen-edge-install-"


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A folder, pip's own temporary files included, that is gone afterwards; as are those of runs that were killed,
    whose locks went with them."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), locked(left):
            if time.time() - left.stat().st_mtime > 60:  # not one that is about to be locked
                shutil.rmtree(left, ignore_errors=True)
    # errors: a compiler that is being killed may write a last file
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name, locked(Path(name)):
        yield Path(name)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Raises OSError if it belongs to another process, or to somebody else."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.geteuid() not in (0, os.fstat(opened).st_uid):
            raise PermissionError
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def end(process: subprocess.Popen[Any], *numbers: int) -> None:
    """End the process and all that it has started, by these signals, one after the other."""
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
