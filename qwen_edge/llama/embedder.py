"""Embeddings of texts: the mean of the model's last hidden states, normalised.

A chat model is not trained for it: the vectors tell texts of different subjects apart, and not much more. They are
computed in a context of their own, which exists only while there is work: its cells and buffers are freed afterwards.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qwen_edge.core.errors import EngineError
from qwen_edge.device.host.memory import is_granted
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.batch import Batch
from qwen_edge.llama.bindings import C
from qwen_edge.llama.model import Model

_BATCH = 32  # tokens: llama.cpp keeps the logits of all of them, 0.6 MB each, although nobody reads them
_BLOCK = 256  # cells: the size of a context is a multiple
_BESIDE_BYTES = 64 << 20  # for llama.cpp's compute graphs and the logits


class Embedder:
    """Embeds one text at a time. Used by the engine's thread."""

    def __init__(self, model: Model, *, threads: int, on_device: bool) -> None:
        """`on_device`: whether the model's layers run on a GPU."""
        self._model, self._threads, self._on_device = model, threads, on_device
        self._batch = Batch(_BATCH)
        self._context: Any = None
        self._cells = 0

    @property
    def size(self) -> int:
        """How many numbers an embedding has."""
        return int(C.llama_model_n_embd(self._model.handle))

    def embed(self, tokens: Sequence[int]) -> Iterator[tuple[int, tuple[float, ...] | None]]:
        """Compute the embedding a piece at a time: yields how many tokens were computed, and with the last piece the
        vector, of length 1. `tokens`: at least one. Raises EngineError if memory is short."""
        self._make_room(len(tokens))
        C.llama_memory_clear(C.llama_get_memory(self._context), False)
        total = np.zeros(self.size, np.float64)
        for start in range(0, len(tokens), _BATCH):
            piece = tokens[start : start + _BATCH]
            self._model.arrange(len(piece))
            status = C.llama_decode(self._context, self._batch.fill([Slice(0, start, list(piece), logits=len(piece))]))
            if status:
                raise EngineError(f"llama_decode returned {status} for an embedding")
            self._model.check()
            for row in range(len(piece)):
                total += self._hidden_state(row)
            yield len(piece), _normalised(total) if start + _BATCH >= len(tokens) else None

    def use_threads(self, count: int) -> None:
        """Use `count` threads from the next piece on."""
        self._threads = count
        if self._context:
            C.llama_set_n_threads(self._context, count, count)

    def close(self) -> None:
        """Free the context. The next `embed` makes a new one."""
        if self._context:
            C.llama_free(self._context)
        self._context, self._cells = None, 0

    def _hidden_state(self, row: int) -> Any:
        pointer = C.llama_get_embeddings_ith(self._context, row)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(self.size,))

    def _make_room(self, tokens: int) -> None:
        """A context of at least so many cells. Raises EngineError."""
        if tokens <= self._cells:
            return
        self.close()
        cells = -(-tokens // _BLOCK) * _BLOCK
        size = _BESIDE_BYTES + (0 if self._on_device else cells * self._model.kv_bytes_per_token())
        # llama.cpp aborts the process if it cannot allocate what it needs
        self._context = (
            C.llama_init_from_model(self._model.handle, self._parameters(cells)) if is_granted(size) else None
        )
        if not self._context:
            raise EngineError(f"there is no memory for an embedding of {tokens} tokens")
        self._cells = cells

    def _parameters(self, cells: int) -> Any:
        params = C.llama_context_default_params()
        params.n_ctx, params.n_seq_max = cells, 1
        params.n_batch = params.n_ubatch = params.n_outputs_max = _BATCH
        params.n_threads = params.n_threads_batch = self._threads
        params.embeddings, params.pooling_type = True, C.LLAMA_POOLING_TYPE_NONE
        params.no_perf = True
        if not self._on_device:
            params.offload_kqv = params.op_offload = False
        return params


def _normalised(total: Any) -> tuple[float, ...]:
    length = float(np.linalg.norm(total))
    return tuple((total / length).astype(np.float32).tolist()) if length else tuple([0.0] * len(total))
