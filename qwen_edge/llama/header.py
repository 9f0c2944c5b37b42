"""Checks a model file by its first bytes, without llama.cpp and without gguf: cheap, and safe with any file.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import stat
import struct
from pathlib import Path
from typing import Literal

END_TOKENS = "qwen_edge.end_token_ids"  # such as "7,8": end tokens for which GGUF defines no key
VERSIONS = (2, 3)
HEADER = "<4sIQQ"  # magic, version, number of tensors, number of keys
_LEAST_TENSOR, _LEAST_KEY = 24, 13  # bytes: the shortest description of a tensor, and of a key
TELLING = 512  # bytes at the beginning of a file that are enough to recognise its format
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def what_is_wrong(file: Path) -> str | None:
    """Why the file cannot be a GGUF model, as half a sentence that begins with a verb; None if it may be one."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            return "is a folder" if stat.S_ISDIR(status.st_mode) else "is no regular file"
        with file.open("rb") as stream:
            begin = stream.read(TELLING)
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return _in_header(begin, status.st_size) if begin.startswith(b"GGUF") else _other(begin)


def _in_header(begin: bytes, size: int) -> str | None:
    if len(begin) < struct.calcsize(HEADER):
        return "is cut short within its header"
    _, version, tensors, keys = struct.unpack_from(HEADER, begin)
    if int.from_bytes(begin[4:8], "big") in VERSIONS:
        return "is made for big-endian machines"
    if version not in VERSIONS:
        return f"is of version {version}, and llama.cpp reads {' and '.join(map(str, VERSIONS))}"
    if not tensors:
        return "holds no tensors (a vocabulary, perhaps)"
    if tensors * _LEAST_TENSOR + keys * _LEAST_KEY > size:
        return f"is cut short or damaged: {tensors} tensors and {keys} keys do not go into {size:,} bytes"
    return None


def stand_in(begin: bytes) -> Literal["pointer", "page"] | None:
    """Whether a download saved a git-lfs pointer or a web page instead of the file. `begin`: the file's first bytes."""
    if begin.startswith(b"version https://git-lfs.github.com/spec/"):
        return "pointer"
    text = begin[:TELLING].removeprefix(_BYTE_ORDER_MARK).lstrip().lower()
    return "page" if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")) else None


def _other(begin: bytes) -> str:
    if not begin:
        return "is empty"
    if found := stand_in(begin):
        pointer = "is a git-lfs pointer, a few lines in place of the file (git lfs pull fetches it)"
        return pointer if found == "pointer" else "is a web page, saved in place of the file"
    if begin.startswith(b"PK\x03\x04"):
        return "is an archive or a file of PyTorch's, no GGUF file"
    return "is no GGUF file"
