"""Opening files that a user names, without waiting for a program that may never write to them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def regular_only(path: str | os.PathLike[str], flags: int) -> int:
    """An `opener` for `open`: it opens regular files, and /dev/null, which stands for an empty one. Raises OSError for
    anything else: to open a pipe waits for a writer, a terminal waits for somebody to type, and some devices never
    end."""
    handle = os.open(path, flags | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(status.st_mode) and status.st_rdev != Path(os.devnull).stat().st_rdev:
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    except BaseException:
        os.close(handle)
        raise
    return handle
