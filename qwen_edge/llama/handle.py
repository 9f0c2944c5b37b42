"""llama.cpp's context behind a handle: what is done to the cells of one KV cache, of whatever size it is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from qwen_edge.core.errors import EngineError, UnservableError
from qwen_edge.device.host.memory import is_granted, own_pages
from qwen_edge.kv.layout import Layout
from qwen_edge.llama.bindings import C
from qwen_edge.llama.devices import gpus, list_devices
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import kv_bytes, on_gpu
from qwen_edge.llama.saved import cells_of_all, cells_of_sequence, turn
from qwen_edge.protocol.messages import Load

KV_TYPES = {"f16": C.GGML_TYPE_F16, "q8_0": C.GGML_TYPE_Q8_0, "q4_0": C.GGML_TYPE_Q4_0}
_ATTENTION = {
    "on": C.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": C.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "auto": C.LLAMA_FLASH_ATTN_TYPE_AUTO,
}
_BLOCK = 256  # cells
SMALL_ROOM = 512  # tokens: where flash attention is quicker only while there are few, it is on in caches up to here
_SEQUENCES_EACH = 2  # for every request that runs there may be one that has, and is remembered
_BESIDE_BYTES = 64 << 20  # for graphs, 20 MB each in llama.cpp's own memory
_STATE_BYTES = 64  # what llama.cpp writes about a cell, a layer, and all of them, at most


Create = Callable[[Any, Any], Any]
"""Makes llama.cpp's context of its model and parameters; nothing where memory is short."""


class NoMemoryError(EngineError):
    """There is no memory for a copy of cells. Nothing has changed."""


class Handle:
    """Owns a context of llama.cpp, and exchanges it for one of another size. Used by one thread."""

    def __init__(self, model: Model, load: Load, create: Create | None = None) -> None:
        self._model, self._kv_type, self._gpu_layers = model, load.kv_type, load.gpu_layers
        self._create, self._asks_first = create or C.llama_init_from_model, create is None
        self.size = min(load.context, model.trained_context)  # cells, when it has grown as large as it may
        self._attention, self._params = load.flash_attention, _parameters(load)
        self._vocabulary = int(C.llama_vocab_n_tokens(C.llama_model_get_vocab(model.handle)))
        self._layout = Layout(self.sequences + 1, whole_blocks(self.size))
        self._context: Any = None
        # llama.cpp's RPC devices are not waited for: they only answer when what they were sent before is done
        self._answers_late = any(device.name.startswith("RPC") for device in gpus(load.gpu_layers))
        self._on_device = on_gpu(load)

    @property
    def handle(self) -> Any:
        """llama.cpp's context. Another one after the cache has grown: do not keep it."""
        return self._context

    @property
    def skips(self) -> bool:
        """Whether attention passes over the cells of other sequences at no cost: flash attention does."""
        return self._skips_in(self.room)

    @property
    def sequences(self) -> int:
        """One less than llama.cpp has: cells go through the last one on their way in and out."""
        return int(self._params.n_seq_max) - 1

    def logits(self, row: int) -> Any:
        """Those of the token at place `row` of the last batch, float32 of shape (vocabulary,); valid until the next."""
        pointer = C.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(self._vocabulary,))

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """The target also holds the source's cells from `start` to before `end`, -1 for all. Only marks them."""
        C.llama_memory_seq_cp(self._memory, source, target, start, end)
        self._layout.share(source, target, start, end)

    def forget(self, sequence: int, start: int, end: int) -> None:
        """The sequence holds its cells from `start` to before `end`, -1 for all, no more."""
        removed = C.llama_memory_seq_rm(self._memory, sequence, start, end)
        assert removed, "a plain attention cache can drop any part"
        self._layout.drop(sequence, start, end)

    def save(self, sequence: int, start: int, end: int) -> np.ndarray[Any, Any]:
        """A copy of the sequence's cells from `start` to before `end`. Raises EngineError, and NoMemoryError."""
        # llama.cpp tells the exact size as slowly as it copies
        size = self._bytes(end - start) + _STATE_BYTES * (end - start + self._model.layers + 1)
        saved = _pages(size)
        self.share(sequence, self.sequences, start, end)
        written = C.llama_state_seq_get_data(self._context, bytes_of(saved), saved.size, self.sequences)
        self.forget(self.sequences, start, end)
        if not written:
            raise EngineError(f"llama.cpp could not save positions {start} to {end} of sequence {sequence}")
        return saved[:written]

    def load(self, cells: Any, sequence: int, start: int, end: int) -> None:
        """The sequence holds the saved cells (bytes that may be changed) from position `start` to before `end`. There
        must be room for all of what was saved. Raises EngineError."""
        saved = np.frombuffer(cells, np.uint8)
        self._turn(saved, cells_of_sequence)
        if not C.llama_state_seq_set_data(self._context, bytes_of(saved), saved.size, self.sequences):
            raise EngineError(f"llama.cpp did not take {saved.size} bytes of a saved sequence")
        self._layout.fill(self.sequences, start, start + cells_of_sequence(saved))
        self.share(self.sequences, sequence, start, end)
        self.forget(self.sequences, 0, start + cells_of_sequence(saved))
        self._wait()

    def use_threads(self, count: int) -> None:
        """From the next batch on, also in another cache."""
        self._params.n_threads = self._params.n_threads_batch = count
        C.llama_set_n_threads(self._context, count, count)

    def close(self) -> None:
        if self._context:
            C.llama_free(self._context)
        self._context = None

    def _wait(self) -> None:
        """Until a device has done what it was told to: llama.cpp returns before that, and whoever measures how long a
        batch takes, or lets the engine rest, must not take it for done. A CPU is never late."""
        C.llama_synchronize(self._context)
        if self._answers_late:
            list_devices()

    def _open(self, room: int) -> None:
        context = self._make(room)
        if not context:
            raise self._why_none(room)
        self._take(context)
        if not self._memory:
            self.close()
            raise UnservableError(
                f"qwen-edge cannot serve this model: llama.cpp makes no KV cache for {self._model.path.name}, as for "
                "models that read texts and write none. Choose a text model with plain attention, such as Qwen3."
            )

    def _why_none(self, room: int) -> EngineError:
        """Why llama.cpp has made no context, which it does not say. What it cannot make on paper either, where it takes
        no memory, it will never make of this model and these settings."""
        what = f"llama.cpp could not make a context of {room} tokens (KV cache {self._kv_type})"
        if self._model.simulated or not self._is_possible(room):
            return UnservableError(
                f"{what} for {self._model.path.name}, however much memory there is. Leave engine.kv_type, "
                "engine.flash_attention and engine.batch to their defaults, or choose another model."
            )
        return EngineError(
            f"{what}: there is not enough memory. Lower engine.context or engine.batch, or choose a smaller "
            "engine.kv_type."
        )

    def _is_possible(self, room: int) -> bool:
        """Whether llama.cpp makes such a context on paper."""
        with Model(self._model.path, gpu_layers=self._gpu_layers, simulate=True) as model:
            context = C.llama_init_from_model(model.handle, self._with_room(room))
            if context:
                C.llama_free(context)
        return bool(context)

    def _make(self, room: int, *, again: bool = False) -> Any:
        """A context of llama.cpp with so many cells; None where memory is short. llama.cpp aborts the process if it
        cannot allocate what it needs beside the cells: so it is only asked where the system grants both, or `again`
        for a size that was there a moment ago."""
        size = _BESIDE_BYTES + (0 if self._on_device else self._bytes(room))
        if self._asks_first and not again and not is_granted(size):
            return None
        return self._create(self._model.handle, self._with_room(room)) or None

    def _move_to(self, context: Any, held: np.ndarray[Any, Any]) -> None:
        """Hold in another context what was saved of this one, which is there until then."""
        old, self._context = self._context, context
        try:
            self._take(context)
            self._load_all(held)
        finally:
            C.llama_free(old)

    def _take(self, context: Any) -> None:
        self._context = context
        self.use_threads(self._params.n_threads)  # it may have been made while others were allowed
        self.room = int(C.llama_n_ctx_seq(self._context))  # cells, rounded up by llama.cpp
        self._memory = C.llama_get_memory(self._context)

    def _with_room(self, room: int) -> Any:
        params = type(self._params).from_buffer_copy(self._params)
        params.n_ctx = room
        params.flash_attn_type = self._attention_in(room)
        return params

    def _skips_in(self, room: int) -> bool:
        return self._attention_in(room) != int(C.LLAMA_FLASH_ATTN_TYPE_DISABLED)

    def _attention_in(self, room: int) -> int:
        """llama.cpp's kind of attention in a cache of this size."""
        attention = self._attention
        if attention == "small":
            attention = "on" if room <= SMALL_ROOM else "off"
        return int(_ATTENTION[attention])

    def _turn(self, saved: np.ndarray[Any, Any], cells: Callable[[np.ndarray[Any, Any]], int]) -> None:
        """What was saved from a cache of another size, or in another life, may have to lie another way."""
        if self._attention != "auto" and self._kv_type == "f16":
            turn(saved, cells(saved), self._model.layers, self._bytes(1), transposed=not self.skips)

    def _bytes(self, cells: int) -> int:
        return kv_bytes(self._model, self._kv_type, cells)

    @property
    def _bytes_beside(self) -> int:
        """What llama.cpp saves beside the cells: those of the last batch, and who holds which cell."""
        return 4 * self._vocabulary * self.sequences + (4 << 20)

    def _save_all(self, buffer: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        """What the cache holds, in llama.cpp's form, in this buffer if it is large enough. Raises EngineError, and
        NoMemoryError."""
        size = C.llama_state_get_size(self._context)
        held = buffer[:size] if buffer is not None and size <= buffer.size else _pages(size)
        written = C.llama_state_get_data(self._context, bytes_of(held), held.size)
        if written != held.size:
            raise EngineError(f"llama.cpp saved {written} of {held.size} bytes of its KV cache")
        return held

    def _load_all(self, held: np.ndarray[Any, Any]) -> None:
        """Hold what was saved, and nothing else, in the first cells."""
        self._turn(held, cells_of_all)
        read = C.llama_state_set_data(self._context, bytes_of(held), held.size)
        if read != held.size:
            raise EngineError(f"llama.cpp read {read} of {held.size} bytes of a saved KV cache")
        self._layout.close_up()
        self._wait()


def _parameters(load: Load) -> Any:
    """Everything about a context but its size."""
    params = C.llama_context_default_params()
    params.n_batch = params.n_ubatch = load.batch
    params.n_seq_max = load.parallel * _SEQUENCES_EACH + 1
    params.kv_unified = True  # sequences share cells
    params.n_outputs_max = params.n_seq_max  # logits of one token a sequence, not of a whole batch: 0.6 MB each
    params.n_threads = params.n_threads_batch = load.threads
    params.type_k = params.type_v = KV_TYPES[load.kv_type]
    params.no_perf = True
    if load.gpu_layers == 0:
        params.offload_kqv = params.op_offload = False
    return params


def _pages(size: int) -> np.ndarray[Any, Any]:
    try:
        return np.frombuffer(own_pages(size), np.uint8)
    except (OSError, MemoryError):
        raise NoMemoryError(f"there is no memory for a copy of {size / 1e6:.0f} MB of the KV cache") from None


def whole_blocks(cells: int) -> int:
    """The least that llama.cpp has, and attention reads, of which these are a part."""
    return -(-cells // _BLOCK) * _BLOCK


def bytes_of(array: np.ndarray[Any, Any]) -> Any:
    """An array's bytes, as llama.cpp takes them; the array must live as long as they are used."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
