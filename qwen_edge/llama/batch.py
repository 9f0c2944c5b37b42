"""llama.cpp's batch, filled from numpy arrays: one assignment for each slice instead of ctypes calls for each token."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from qwen_edge.core.errors import EngineError
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.bindings import C


class Batch:
    """A batch of up to `size` tokens, filled again for every decode. Used by the engine's thread."""

    def __init__(self, size: int) -> None:
        self._tokens, self._positions, self._sequences = (np.zeros(size, np.int32) for _ in range(3))
        self._counts, self._wanted = np.ones(size, np.int32), np.zeros(size, np.int8)
        first, each = self._sequences.ctypes.data, self._sequences.itemsize
        addresses = (ctypes.c_void_p * size)(*range(first, first + size * each, each))
        self._lists = ctypes.cast(addresses, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        self._kept = addresses  # keeps the memory that _lists points to

    def fill(self, slices: Sequence[Slice]) -> Any:
        """Put the slices into a llama_batch, one after the other. Raises EngineError if they have too many tokens."""
        if (count := sum(len(one.tokens) for one in slices)) > len(self._tokens):
            raise EngineError(f"{count} tokens are more than a batch of {len(self._tokens)} holds")
        end = 0
        self._wanted[:] = 0
        for one in slices:
            begin, end = end, end + len(one.tokens)
            self._tokens[begin:end] = one.tokens
            self._positions[begin:end] = np.arange(one.position, one.position + len(one.tokens), dtype=np.int32)
            self._sequences[begin:end] = one.sequence
            self._wanted[end - one.logits : end] = 1
        return C.llama_batch(
            n_tokens=end,
            token=self._tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            pos=self._positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._lists,
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
