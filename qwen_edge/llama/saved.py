"""llama.cpp's format of a saved KV cache, and its conversion for a cache with another kind of attention.

With flash attention the values (V) of a token are contiguous, without it those of a channel; llama.cpp restores only
the layout it uses itself. The format is that of llama_kv_cache::state_write_data in its src/llama-kv-cache.cpp. The end
of the saved bytes holds: whether V is transposed; the number of layers; for each layer a head and the keys; for each
layer a head and the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qwen_edge.core.errors import EngineError

Bytes = np.ndarray[Any, Any]

_STRIP = 16  # rows of values that are transposed at once
_HEAD = 12  # bytes: the type of the elements, and the size of a row or of one element and the number of rows


def turn(saved: Bytes, cells: int, layers: int, token: int, *, transposed: bool) -> None:
    """Convert, in place, the values (two bytes each) to the layout `transposed`. `cells`: number of cells; `token`:
    bytes of keys and values of one cell in all layers. Raises EngineError if the bytes do not have the format above."""
    if not cells:
        return
    at = saved.size - (8 + layers * 2 * _HEAD + cells * token)
    flag = saved[at : at + 8].view(np.uint32) if at >= 0 else np.zeros(2, np.uint32)
    if int(flag[1]) != layers or int(flag[0]) > 1:
        raise EngineError(f"{saved.size} bytes of a saved KV cache are not what llama.cpp writes for {cells} tokens.")
    if bool(flag[0]) == transposed:
        return
    flag[0] = transposed
    at += 8
    key_row = int(saved[at + 4 : at + _HEAD].view(np.uint64)[0])
    at += layers * (_HEAD + cells * key_row)
    width = (token // layers - key_row) // 2
    for _ in range(layers):
        head, values = saved[at : at + _HEAD].view(np.uint32), saved[at + _HEAD : at + _HEAD + 2 * cells * width]
        head[1:] = (2, width) if transposed else (2 * width, 0)
        rows = values.view(np.uint16).reshape((cells, width) if transposed else (width, cells))
        values[:] = _transposed(rows).ravel().view(np.uint8)
        at += _HEAD + values.size


def _transposed(rows: np.ndarray[Any, np.dtype[np.uint16]]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """As `rows.T`, contiguous. A few rows at a time, whose parts stay in the processor's cache: three to five times as
    fast as all at once."""
    turned = np.empty(rows.shape[::-1], np.uint16)
    for start in range(0, len(rows), _STRIP):
        turned[:, start : start + _STRIP] = rows[start : start + _STRIP].T
    return turned


def cells_of_all(saved: Bytes) -> int:
    """The number of cells in a saved context; it follows the name of the architecture and the number of streams."""
    name = 4 + int(saved[:4].view(np.uint32)[0])
    return int(saved[name + 4 : name + 8].view(np.uint32)[0])


def cells_of_sequence(saved: Bytes) -> int:
    """The number of cells in a saved sequence; it follows a mark, the id of the sequence and the number of streams."""
    return int(saved[12:16].view(np.uint32)[0])
