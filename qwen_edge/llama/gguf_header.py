"""What llama.cpp's own reader finds in the header of a GGUF file, without loading the file."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.llama.bindings import function

_STRING = 8  # of gguf_type
_HANDLE = ctypes.c_void_p


@dataclass(frozen=True)
class Place:
    """Where a tensor's data lie in the file: first byte, and number of bytes."""

    start: int
    size: int


class _Reading(ctypes.Structure):
    """gguf_init_params, to read only the header."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def text_of(path: Path, key: bytes) -> str | None:
    """The value of `key` in the file's metadata, if it is text; None also for a file that is not GGUF."""
    with _opened(path) as header:
        at = function("gguf_find_key", ctypes.c_int64, _HANDLE, ctypes.c_char_p)(header, key) if header else -1
        if at < 0 or function("gguf_get_kv_type", ctypes.c_int, _HANDLE, ctypes.c_int64)(header, at) != _STRING:
            return None
        text: bytes = function("gguf_get_val_str", ctypes.c_char_p, _HANDLE, ctypes.c_int64)(header, at)
        return text.decode("utf-8", "replace")


def places_of_tensors(path: Path) -> dict[str, Place]:
    """Where the data of each tensor lie, by name; empty for a file that is not GGUF."""
    with _opened(path) as header:
        if not header:
            return {}
        data = function("gguf_get_data_offset", ctypes.c_size_t, _HANDLE)(header)
        count = function("gguf_get_n_tensors", ctypes.c_int64, _HANDLE)(header)
        name, offset, size = (
            function(f"gguf_get_tensor_{what}", kind, _HANDLE, ctypes.c_int64)
            for what, kind in (("name", ctypes.c_char_p), ("offset", ctypes.c_size_t), ("size", ctypes.c_size_t))
        )
        return {
            name(header, at).decode("utf-8", "replace"): Place(data + offset(header, at), size(header, at))
            for at in range(count)
        }


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """llama.cpp's handle of the header; None if the file is not GGUF."""
    open_file = function("gguf_init_from_file", _HANDLE, ctypes.c_char_p, _Reading)
    header: int | None = open_file(bytes(path), _Reading(True, None))
    try:
        yield header
    finally:
        if header:
            function("gguf_free", None, _HANDLE)(header)
