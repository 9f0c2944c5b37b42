"""A context: the KV cache and the buffers to run batches through the model.

The cache begins small and doubles when it is full, up to what was configured: most conversations never need all of it,
llama.cpp writes to every byte it allocates, and without flash attention a larger cache is slower to read, because the
values of one channel lie as far apart as the cache is long.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from qwen_edge.device.memory import available_bytes
from qwen_edge.errors import EngineError
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.batch import Batch
from qwen_edge.llama.bindings import C
from qwen_edge.llama.model import Model
from qwen_edge.llama.settle import kv_bytes, on_gpu
from qwen_edge.llama.successor import Successor
from qwen_edge.messages import Load

KV_TYPES = {"f16": C.GGML_TYPE_F16, "q8_0": C.GGML_TYPE_Q8_0, "q4_0": C.GGML_TYPE_Q4_0}
_ATTENTION = {
    "on": C.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": C.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "auto": C.LLAMA_FLASH_ATTN_TYPE_AUTO,
}
_FIRST_ROOM = 1024  # tokens: a smart home's prompt and answer
_SEQUENCES_EACH = 2  # for every request that runs there may be one that has, and is remembered
_SPARE_ROOM = 256  # cells that stay free when the cache is made smaller
_SPARE_BYTES = 256 << 20  # of the system's memory, which a growth beside the work leaves alone
_STATE_BYTES = 64  # what llama.cpp writes about a cell, a layer, and all of them, at most
_NO_ROOM = 1  # llama_decode: there are not enough free cells for this batch; nothing has changed


class Context:
    """The cells of one KV cache, shared by many sequences. `decode` runs slices of tokens, one of each sequence."""

    def __init__(self, model: Model, load: Load, room: int = _FIRST_ROOM) -> None:
        """For as many tokens as a settled `load` asks for, but no more than the model was trained for; there is space
        for `room` of them at first. Raises EngineError if there is not enough memory."""
        self.size = min(load.context, model.trained_context)
        self._model, self._kv_type = model, load.kv_type
        self._params = _parameters(load)
        self._vocabulary = int(C.llama_vocab_n_tokens(C.llama_model_get_vocab(model.handle)))
        self.batch = min(load.batch, self.size)
        self._batch = Batch(self.batch)
        self._quiet = not on_gpu(load)  # two contexts at once: one thread must not get in the other's way on a GPU
        self.growing: Successor | None = None  # a larger cache that is being made
        # llama.cpp takes no batch that is larger than the cache, and aborts the process over it
        self._least_room = max(min(_FIRST_ROOM, self.size), self.batch)
        self._open(max(min(room, self.size), self.batch))

    @property
    def handle(self) -> Any:
        """llama.cpp's context. Another one after the cache has grown: do not keep it."""
        return self._context

    @property
    def skips(self) -> bool:
        """Whether attention passes over the cells of other sequences at no cost: flash attention does."""
        return bool(self._params.flash_attn_type != C.LLAMA_FLASH_ATTN_TYPE_DISABLED)

    @property
    def sequences(self) -> int:
        """One less than llama.cpp has: cells go through the last one on their way in and out."""
        return int(self._params.n_seq_max) - 1

    @property
    def bytes_to_come(self) -> int:
        """What the cache will have grown by when the context is full."""
        return self._bytes(max(0, self.size - self._room))

    def expect(self, cells: int) -> None:
        """So many cells will be held before long. Where they are more than there is room for, a larger cache is made
        beside the work, if memory allows, and moved to when it is there. Raises EngineError."""
        if self.growing and self.growing.ready:
            self._succeed()
        if self.growing or not self._quiet or cells <= self._room or self._room == self.size:
            return
        room, held = self._enough(cells), self._bytes(self._room) + self._bytes_beside
        if available_bytes() > self._bytes(room) + held + _SPARE_BYTES:
            self.growing = Successor(self._model.handle, self._with_room(room), held)

    def decode(self, slices: Sequence[Slice]) -> None:
        """Run slices as one batch. Blocks for the length of the computation, without the interpreter lock; where the
        cache must grow first, for the time it takes to copy it as well. Raises EngineError; what the cache then holds
        is not known."""
        batch = self._batch.fill(slices)
        while (status := C.llama_decode(self._context, batch)) == _NO_ROOM and self._room < self.size:
            self._grow()
        if status != 0:
            why = "the context is full" if status == _NO_ROOM else f"llama_decode returned {status}"
            at = ", ".join(f"{len(one.tokens)} at position {one.position} of {one.sequence}" for one in slices)
            raise EngineError(f"{why}; tokens of sequences: {at}")

    def logits(self, row: int) -> Any:
        """Those of the token at place `row` of the last batch, float32 of shape (vocabulary,); valid until the next."""
        pointer = C.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(self._vocabulary,))

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """The target sequence also holds the source's cells from `start` to before `end`. Only marks them."""
        C.llama_memory_seq_cp(self._memory, source, target, start, end)

    def forget(self, sequence: int, start: int, end: int) -> None:
        """The sequence holds its cells from `start` to before `end` no more."""
        removed = C.llama_memory_seq_rm(self._memory, sequence, start, end)
        assert removed, "a plain attention cache can drop any part"

    def save(self, sequence: int, start: int, end: int) -> np.ndarray[Any, Any]:
        """A copy of the sequence's cells from `start` to before `end`. Raises EngineError."""
        # llama.cpp tells the exact size as slowly as it copies
        saved = np.empty(self._bytes(end - start) + _STATE_BYTES * (end - start + self._model.layers + 1), np.uint8)
        self.share(sequence, self.sequences, start, end)
        written = C.llama_state_seq_get_data(self._context, bytes_of(saved), saved.size, self.sequences)
        self.forget(self.sequences, start, end)
        if not written:
            raise EngineError(f"llama.cpp could not save positions {start} to {end} of sequence {sequence}")
        return saved[:written]

    def load(self, saved: np.ndarray[Any, Any], sequence: int, start: int, end: int) -> None:
        """The sequence holds the saved cells from position `start` to before `end`. There must be room for all of what
        was saved. Raises EngineError."""
        if not C.llama_state_seq_set_data(self._context, bytes_of(saved), saved.size, self.sequences):
            raise EngineError(f"llama.cpp did not take {saved.size} bytes of a saved sequence")
        self.share(self.sequences, sequence, start, end)
        self.forget(self.sequences, 0, -1)

    def make_room(self, cells: int) -> None:
        """Grow now if so many cells do not fit. Raises EngineError."""
        while self._room < min(cells, self.size):
            self._grow()

    def close(self) -> None:
        self._call_off()
        if self._context:
            self._free()

    def fit(self, cells: int) -> None:
        """Give memory back if so many cells, which are all that are held, leave more than half of the cache empty."""
        self._call_off()
        room = max(self._least_room, cells + _SPARE_ROOM)
        if self._room >= 2 * room:
            self._move(room)

    def _grow(self) -> None:
        """There is no room for the next batch: take the larger cache that is being made, or make one."""
        if self.growing:
            self.growing.wait()
            self._succeed()
        else:
            self._move(self._enough(self._room + 1))

    def _succeed(self) -> None:
        """Move to the context that has been made beside the work."""
        successor, self.growing = self.growing, None
        assert successor
        if not successor.context:
            self._quiet = False  # no memory after all: what is needed is tried once more, when it is
            return
        held = self._save(successor.buffer)
        self._free()
        self._take(successor.context)
        self._restore(held)

    def _call_off(self) -> None:
        if self.growing:
            self.growing.discard()
            self.growing = None

    def _enough(self, cells: int) -> int:
        """The next size of the cache, by doubling, that so many cells fit into, if any does."""
        room = self._room
        while room < min(cells, self.size):
            room = min(self.size, 2 * room)
        return room

    def _move(self, room: int) -> None:
        """To a cache of another size: the old one is gone before the new one is made, so that both are never in memory,
        only the new one and what the old one held."""
        held = self._save(np.empty(C.llama_state_get_size(self._context), np.uint8))
        self._free()
        self._open(room)
        self._restore(held)

    def _open(self, room: int) -> None:
        context = C.llama_init_from_model(self._model.handle, self._with_room(room))
        if not context:
            raise EngineError(
                f"llama.cpp could not make a context of {room} tokens (KV cache {self._kv_type}). "
                "Lower engine.context or choose a smaller engine.kv_type."
            )
        self._take(context)

    def _take(self, context: Any) -> None:
        self._context = context
        self._room = int(C.llama_n_ctx_seq(self._context))  # rounded up by llama.cpp
        self._memory = C.llama_get_memory(self._context)

    def _free(self) -> None:
        C.llama_free(self._context)
        self._context = None

    def _with_room(self, room: int) -> Any:
        params = type(self._params).from_buffer_copy(self._params)
        params.n_ctx = room
        return params

    def _bytes(self, cells: int) -> int:
        return kv_bytes(self._model, self._kv_type, cells)

    @property
    def _bytes_beside(self) -> int:
        """What llama.cpp saves beside the cells: those of the last batch, and who holds which cell."""
        return 4 * self._vocabulary * self.sequences + (4 << 20)

    def _save(self, buffer: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What the cache holds, in llama.cpp's form, in this buffer if it is large enough."""
        size = C.llama_state_get_size(self._context)
        held = buffer[:size] if size <= buffer.size else np.empty(size, np.uint8)
        written = C.llama_state_get_data(self._context, bytes_of(held), held.size)
        if written != held.size:
            raise EngineError(f"llama.cpp saved {written} of {held.size} bytes of its KV cache")
        return held

    def _restore(self, held: np.ndarray[Any, Any]) -> None:
        read = C.llama_state_set_data(self._context, bytes_of(held), held.size)
        if read != held.size:
            raise EngineError(f"llama.cpp read {read} of {held.size} bytes of a saved KV cache")


def _parameters(load: Load) -> Any:
    """Everything about a context but its size."""
    params = C.llama_context_default_params()
    params.n_batch = params.n_ubatch = load.batch
    params.n_seq_max = load.parallel * _SEQUENCES_EACH + 1
    params.kv_unified = True  # sequences share cells
    params.n_outputs_max = params.n_seq_max  # logits of one token a sequence, not of a whole batch: 0.6 MB each
    params.n_threads = params.n_threads_batch = load.threads
    params.type_k = params.type_v = KV_TYPES[load.kv_type]
    params.flash_attn_type = _ATTENTION[load.flash_attention]
    params.no_perf = True
    return params


def bytes_of(array: np.ndarray[Any, Any]) -> Any:
    """An array's bytes, as llama.cpp takes them; the array must live as long as they are used."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
