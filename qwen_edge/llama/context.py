"""llama.cpp's context of one size: the cells of a KV cache, and the buffers to run batches through the model.

A context never changes its size or its kind of attention. Whoever needs another one makes it of the same
`ContextSettings`, and moves the cells: `save_all` of the one, `load_all` of the other. The two may differ in size and
in attention; what llama.cpp has written for the one is turned for the other.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwen_edge.core.errors import EngineError
from qwen_edge.device.host.memory import is_granted, own_pages
from qwen_edge.llama.bindings import C
from qwen_edge.llama.devices import gpus, list_devices
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import kv_bytes, on_gpu
from qwen_edge.llama.saved import cells_of_all, cells_of_sequence, turn
from qwen_edge.protocol.messages import Load

KV_TYPES = {"f16": C.GGML_TYPE_F16, "q8_0": C.GGML_TYPE_Q8_0, "q4_0": C.GGML_TYPE_Q4_0}
SMALL_ROOM = 512  # cells: where flash attention is quicker only while there are few, contexts up to this size have it
_ATTENTION = {
    "on": C.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": C.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "auto": C.LLAMA_FLASH_ATTN_TYPE_AUTO,
}
_SEQUENCES_EACH = 2  # for every request that runs, one sequence that has finished is remembered
_BESIDE_BYTES = 64 << 20  # for graphs, 20 MB each in llama.cpp's own memory
_STATE_BYTES = 64  # what llama.cpp writes about a cell, a layer, and all of them, at most

Create = Callable[[Any, Any], Any]
"""Makes llama.cpp's context of its model and parameters; nothing where memory is short."""
Bytes = np.ndarray[Any, Any]


class NoMemoryError(EngineError):
    """There is no memory for a copy of cells. Nothing has changed."""


@dataclass(frozen=True)
class ContextSettings:
    """All that the contexts of one loaded model have in common: everything but their size."""

    model: Model
    kv_type: str
    attention: str  # "on", "off", "auto" (llama.cpp decides), "small": on up to SMALL_ROOM cells
    params: Any
    on_device: bool
    answers_late: bool  # llama.cpp's RPC devices say nothing until what they were sent before is done
    asks_first: bool
    create: Create

    @classmethod
    def of(cls, model: Model, load: Load, create: Create | None = None) -> ContextSettings:
        """For a resolved `load`. `create` makes llama.cpp's contexts, where llama.cpp itself is not to be asked."""
        return cls(
            model=model,
            kv_type=load.kv_type,
            attention=load.flash_attention,
            params=_parameters(load),
            on_device=on_gpu(load),
            answers_late=any(device.name.startswith("RPC") for device in gpus(load.gpu_layers)),
            asks_first=create is None,
            create=create or C.llama_init_from_model,
        )

    @property
    def sequences(self) -> int:
        """One less than llama.cpp has: saved cells pass through the last one, `scratch`."""
        return int(self.params.n_seq_max) - 1

    @property
    def scratch(self) -> int:
        return self.sequences

    @property
    def turns_values(self) -> bool:
        """Whether values are laid out by the kind of attention, and it is known by which."""
        return self.attention != "auto" and self.kv_type == "f16"

    def bytes(self, cells: int) -> int:
        """Of so many cells."""
        return kv_bytes(self.model, self.kv_type, cells)

    def attention_of(self, cells: int) -> int:
        """llama.cpp's kind of attention in a context of this size."""
        attention = self.attention
        if attention == "small":
            attention = "on" if cells <= SMALL_ROOM else "off"
        return int(_ATTENTION[attention])

    def skips(self, cells: int) -> bool:
        """Whether attention in a context of this size passes over the cells of other sequences at no cost: flash
        attention does."""
        return self.attention_of(cells) != int(C.LLAMA_FLASH_ATTN_TYPE_DISABLED)

    def open(self, cells: int, threads: int, *, again: bool = False) -> Context | None:
        """A context of so many cells; None where memory is short. llama.cpp aborts the process if it cannot allocate
        what it needs beside the cells: so it is only asked where the system grants both, or `again` for a size that was
        there a moment ago. Any thread may ask."""
        size = _BESIDE_BYTES + (0 if self.on_device else self.bytes(cells))
        if self.asks_first and not again and not is_granted(size):
            return None
        params = type(self.params).from_buffer_copy(self.params)
        params.n_ctx, params.flash_attn_type = cells, self.attention_of(cells)
        params.n_threads = params.n_threads_batch = threads
        handle = self.create(self.model.handle, params)
        return Context(self, handle) if handle else None


class Context:
    """Owns one context of llama.cpp. Used by one thread at a time."""

    def __init__(self, settings: ContextSettings, handle: Any) -> None:
        """Takes over `handle`, llama.cpp's own."""
        self.settings, self.handle = settings, handle
        self.cells = int(C.llama_n_ctx_seq(handle))  # rounded up by llama.cpp
        self.skips = settings.skips(self.cells)
        self._memory = C.llama_get_memory(handle)
        self._vocabulary = int(C.llama_vocab_n_tokens(C.llama_model_get_vocab(settings.model.handle)))

    @property
    def has_memory(self) -> bool:
        """Whether llama.cpp keeps anything of the tokens it has read; of some kinds of models it does not."""
        return bool(self._memory)

    def run(self, batch: Any) -> int:
        """llama_decode, without the interpreter lock: its status, 0 if all is well. Returns when the device has done
        it."""
        status = int(C.llama_decode(self.handle, batch))
        if status == 0:
            self.wait()
        return status

    def logits(self, row: int) -> Any:
        """Those of the token at `row` of the last batch, float32 of shape (vocabulary,); valid until the next."""
        pointer = C.llama_get_logits_ith(self.handle, row)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(self._vocabulary,))

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """The target also holds the source's cells from `start` to before `end`, -1 for all. Only marks them."""
        C.llama_memory_seq_cp(self._memory, source, target, start, end)

    def forget(self, sequence: int, start: int, end: int) -> None:
        """The sequence holds its cells from `start` to before `end`, -1 for all, no more."""
        removed = C.llama_memory_seq_rm(self._memory, sequence, start, end)
        assert removed, "a plain attention cache can drop any part"

    def save(self, sequence: int, start: int, end: int) -> Bytes:
        """A copy of the sequence's cells from `start` to before `end`. Raises EngineError, and NoMemoryError."""
        settings = self.settings
        # llama.cpp tells the exact size as slowly as it copies
        size = settings.bytes(end - start) + _STATE_BYTES * (end - start + settings.model.layers + 1)
        saved = _pages(size)
        self.share(sequence, settings.scratch, start, end)
        written = C.llama_state_seq_get_data(self.handle, bytes_of(saved), saved.size, settings.scratch)
        self.forget(settings.scratch, start, end)
        if not written:
            raise EngineError(f"llama.cpp could not save positions {start} to {end} of sequence {sequence}")
        return saved[:written]

    def load(self, cells: Any, sequence: int, start: int, end: int) -> int:
        """The sequence holds the saved cells (bytes that may be changed) from position `start` to before `end`. There
        must be room for all of what was saved: returns how many cells that were. Raises EngineError."""
        saved, scratch = np.frombuffer(cells, np.uint8), self.settings.scratch
        self._turn(saved, cells_of_sequence)
        if not C.llama_state_seq_set_data(self.handle, bytes_of(saved), saved.size, scratch):
            raise EngineError(f"llama.cpp did not take {saved.size} bytes of a saved sequence")
        self.share(scratch, sequence, start, end)
        count = cells_of_sequence(saved)
        self.forget(scratch, 0, start + count)
        self.wait()
        return count

    @property
    def most_bytes_beside(self) -> int:
        """What llama.cpp saves beside the cells, at most: the logits of the last batch, and who holds which cell."""
        return 4 * self._vocabulary * self.settings.sequences + (4 << 20)

    def save_all(self, buffer: Bytes | None = None) -> Bytes:
        """All that the context holds, in llama.cpp's form, in this buffer if it is large enough. Raises EngineError,
        and NoMemoryError."""
        size = C.llama_state_get_size(self.handle)
        held = buffer[:size] if buffer is not None and size <= buffer.size else _pages(size)
        written = C.llama_state_get_data(self.handle, bytes_of(held), held.size)
        if written != held.size:
            raise EngineError(f"llama.cpp saved {written} of {held.size} bytes of its KV cache")
        return held

    def load_all(self, held: Bytes) -> None:
        """Hold what was saved of this context, or of another one of these settings, and nothing else, in the first
        cells. The bytes may be changed. Raises EngineError."""
        self._turn(held, cells_of_all)
        read = C.llama_state_set_data(self.handle, bytes_of(held), held.size)
        if read != held.size:
            raise EngineError(f"llama.cpp read {read} of {held.size} bytes of a saved KV cache")
        self.wait()

    def use_threads(self, count: int) -> None:
        """From the next batch on."""
        C.llama_set_n_threads(self.handle, count, count)

    def wait(self) -> None:
        """Until a device has done what it was told to: llama.cpp returns before that, and whoever measures how long a
        batch takes, or lets the engine rest, must not take it for done. A CPU is never late."""
        C.llama_synchronize(self.handle)
        if self.settings.answers_late:
            list_devices()

    def close(self) -> None:
        """Free it; it is not used after."""
        C.llama_free(self.handle)

    def _turn(self, saved: Bytes, cells: Callable[[Bytes], int]) -> None:
        """What was saved of a context with another kind of attention, or in another life, may have to lie another
        way."""
        if self.settings.turns_values:
            layers, token = self.settings.model.layers, self.settings.bytes(1)
            turn(saved, cells(saved), layers, token, transposed=not self.skips)


def _parameters(load: Load) -> Any:
    """Everything about a context but its size, its attention and its threads."""
    params = C.llama_context_default_params()
    params.n_batch = params.n_ubatch = load.batch
    params.n_seq_max = load.parallel * _SEQUENCES_EACH + 1
    params.kv_unified = True  # sequences share cells
    params.n_outputs_max = params.n_seq_max  # logits of one token a sequence, not of a whole batch: 0.6 MB each
    params.type_k = params.type_v = KV_TYPES[load.kv_type]
    params.no_perf = True
    if load.gpu_layers == 0:
        params.offload_kqv = params.op_offload = False
    return params


def _pages(size: int) -> Bytes:
    try:
        return np.frombuffer(own_pages(size), np.uint8)
    except (OSError, MemoryError):
        raise NoMemoryError(f"there is no memory for a copy of {size / 1e6:.0f} MB of the KV cache") from None


def bytes_of(array: Bytes) -> Any:
    """An array's bytes, as llama.cpp takes them; the array must live as long as they are used."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
