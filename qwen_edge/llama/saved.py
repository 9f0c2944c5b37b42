"""What llama.cpp writes of a KV cache, and how it is turned for a cache with another kind of attention.

With flash attention the values of a token lie together, without it those of a channel; llama.cpp takes back only what
lies as its own do. The form is that of llama_kv_cache::state_write_data in its src/llama-kv-cache.cpp: at the end of
all, whether values are transposed, the number of layers, then for each layer a head and its keys, then for each layer
a head and its values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qwen_edge.core.errors import EngineError

Bytes = np.ndarray[Any, Any]

_HEAD = 12  # bytes: the type of the elements, and the size of a row or of one element and the number of rows


def turn(saved: Bytes, cells: int, layers: int, token: int, *, transposed: bool) -> None:
    """Let the values, of two bytes each, lie as they are wanted. There are so many `cells`, and `token` bytes of keys
    and values of each in all layers together. Raises EngineError for another form than that above."""
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
        values[:] = rows.T.ravel().view(np.uint8)
        at += _HEAD + values.size


def cells_of_all(saved: Bytes) -> int:
    """How many cells there are in what was saved of a whole context: behind the architecture's name and one stream."""
    name = 4 + int(saved[:4].view(np.uint32)[0])
    return int(saved[name + 4 : name + 8].view(np.uint32)[0])


def cells_of_sequence(saved: Bytes) -> int:
    """How many cells there are in what was saved of one sequence: behind a mark, its number and one stream."""
    return int(saved[12:16].view(np.uint32)[0])
