"""The types of a KV cache: how llama.cpp stores the elements of keys, and those of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from qwen_edge.llama.bindings import C


class Element(NamedTuple):
    """`ggml`: llama.cpp's number of the type. `bytes` of one element, on average. Elements are stored in blocks of
    `block`, with a 2-byte scale each where they are quantized."""

    ggml: int
    bytes: float
    block: int


class Stored(NamedTuple):
    """How the keys and the values of a cell are stored."""

    keys: Element
    values: Element

    def fills_blocks(self, key_length: int, value_length: int) -> bool:
        """Whether each head's key and value, of so many elements, consist of whole blocks. With other heads
        llama.cpp makes no cache, and without flash attention it aborts the process."""
        return key_length % self.keys.block == 0 and value_length % self.values.block == 0


_F16 = Element(int(C.GGML_TYPE_F16), 2.0, 1)
_Q8_0 = Element(int(C.GGML_TYPE_Q8_0), 34 / 32, 32)
_Q4_0 = Element(int(C.GGML_TYPE_Q4_0), 18 / 32, 32)

STORED: Mapping[str, Stored] = {
    "f16": Stored(_F16, _F16),
    "q8_0_keys": Stored(_Q8_0, _F16),
    "q8_0": Stored(_Q8_0, _Q8_0),
    "q4_0": Stored(_Q4_0, _Q4_0),
}
"""By the names of `KvType`."""
