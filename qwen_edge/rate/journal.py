"""A file of JSON lines that only grows: a power cut loses at most the line that was being written.

Several processes may append to one file at the same time: each append holds the file's lock. Blocking; any thread.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_edge.core.atomic_file import sync
from qwen_edge.core.errors import UserError

_LONGEST = 1 << 22  # bytes of a torn last line


def read(path: Path) -> list[dict[str, Any]]:
    """The records, in the order in which they were appended; none if there is no such file. A torn last line is passed
    over. Raises UserError with the number of a damaged line."""
    try:
        *whole, rest = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    records = list[dict[str, Any]]()
    for number, line in enumerate(whole, 1):
        record = _record(line)
        if record is None:
            raise UserError(
                f"{path}, line {number}: not a JSON object. The file is damaged, or not one of qwen-edge rate."
            )
        records.append(record)
    last = _record(rest)
    return records if last is None else [*records, last]


def append(path: Path, record: Mapping[str, Any], *, first: Mapping[str, Any] | None = None) -> None:
    """Append a record, and return when it is on the disk. What is left of a torn last line is cut off. `first`: the
    record with which a new file begins. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            end = _end_of_records(handle)
            lines = [record] if end or first is None else [first, record]
            text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines).encode(errors="replace")
            _write(handle, text, end)
            os.fsync(handle)
        finally:
            os.close(handle)
        if not end:
            sync(path.parent)  # the new file's name
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.") from None


def _end_of_records(handle: int) -> int:
    """Where the next record begins. A last record without its line end gets one; a torn one is cut off."""
    size = os.fstat(handle).st_size
    if not size or os.pread(handle, 1, size - 1) == b"\n":
        return size
    start = max(0, size - _LONGEST)
    tail = os.pread(handle, _LONGEST, start)
    begin = tail.rfind(b"\n") + 1
    if _record(tail[begin:]) is not None:
        os.pwrite(handle, b"\n", size)
        return size + 1
    if not begin and start:
        raise ValueError("its last line is too long to be one of qwen-edge rate")
    os.ftruncate(handle, start + begin)
    return start + begin


def _write(handle: int, text: bytes, at: int) -> None:
    while text:
        written = os.pwrite(handle, text, at)
        at, text = at + written, text[written:]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
