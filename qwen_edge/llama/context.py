"""llama.cpp's context of one size: the cells of a KV cache, and the buffers to run batches through the model.

A context never changes its size or its kind of attention. To change either, create a second context from the same
`ContextSettings` and copy the cells with `save_all` of the first and `load_all` of the second. If the kinds of
attention differ, `load_all` transposes the saved values.
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
from qwen_edge.llama.kv_types import STORED
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import kv_bytes, on_gpu
from qwen_edge.llama.saved import cells_of_all, cells_of_sequence, turn
from qwen_edge.protocol.loading import FLASH_ONLY
from qwen_edge.protocol.messages import Load

SMALL_ROOM = 512  # cells of the smallest context of a cache that grows: a question and its answer
_ATTENTION = {
    "on": C.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": C.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "auto": C.LLAMA_FLASH_ATTN_TYPE_AUTO,
}
_SEQUENCES_EACH = 2  # sequences per running request: its own, and one that keeps a finished request
_BESIDE_BYTES = 64 << 20  # for llama.cpp's compute graphs, 20 MB each
_STATE_BYTES = 64  # the most metadata that llama.cpp writes for each cell, for each layer, and once for all

Create = Callable[[Any, Any], Any]
"""Creates a llama.cpp context from a model and parameters; returns None if memory is short."""
Bytes = np.ndarray[Any, Any]


class NoMemoryError(EngineError):
    """There is no memory for a copy of the cells. The context is unchanged."""


@dataclass(frozen=True)
class ContextSettings:
    """What all contexts of one loaded model have in common: everything but their size, and for how many requests they
    are."""

    model: Model
    kv_type: str
    attention: str  # "on", "off", "auto" (llama.cpp decides), "small": on up to `flash_cells` cells
    flash_cells: int
    flash_streams: int  # how many requests at once are a crowd, for which attention is "on"; 0: there is no crowd
    params: Any
    on_device: bool
    answers_late: bool  # an RPC device: its next reply comes only when all earlier work is done
    asks_first: bool  # whether to check for free memory before a context is created
    create: Create

    @classmethod
    def of(cls, model: Model, load: Load, create: Create | None = None) -> ContextSettings:
        """For a resolved `load`. `create` replaces llama.cpp's own function that creates a context."""
        return cls(
            model=model,
            kv_type=load.kv_type,
            attention=load.flash_attention,
            flash_cells=load.flash_cells,
            flash_streams=load.flash_streams,
            params=_parameters(load),
            on_device=on_gpu(load),
            answers_late=any(device.name.startswith("RPC") for device in gpus(load.gpu_layers)),
            asks_first=create is None,
            create=create or C.llama_init_from_model,
        )

    @property
    def sequences(self) -> int:
        """How many sequences callers may use. llama.cpp has one more, `scratch`, through which saved cells pass."""
        return int(self.params.n_seq_max) - 1

    @property
    def scratch(self) -> int:
        return self.sequences

    @property
    def turns_values(self) -> bool:
        """Whether the layout of saved values depends on the kind of attention, and that kind is known."""
        return self.attention != "auto" and self.kv_type not in FLASH_ONLY

    def bytes(self, cells: int) -> int:
        """The size of `cells` cells."""
        return kv_bytes(self.model, self.kv_type, cells)

    def is_crowd(self, streams: int) -> bool:
        """Whether flash attention is faster, in a context of any size, when so many requests run at once: it skips the
        cells of the others."""
        return 1 < self.flash_streams <= streams

    def attention_of(self, cells: int, *, crowd: bool = False) -> int:
        """llama.cpp's kind of attention in a context of this size."""
        attention = "on" if crowd else self.attention
        if attention == "small":
            attention = "on" if cells <= self.flash_cells else "off"
        return int(_ATTENTION[attention])

    def skips(self, cells: int, *, crowd: bool = False) -> bool:
        """Whether attention in a context of this size skips the cells of other sequences at no cost. Flash attention
        does."""
        return self.attention_of(cells, crowd=crowd) != int(C.LLAMA_FLASH_ATTN_TYPE_DISABLED)

    def open(self, cells: int, threads: int, *, again: bool = False, crowd: bool = False) -> Context | None:
        """Create a context of `cells` cells, for a crowd or for few requests; None if memory is short. llama.cpp
        aborts the process if it cannot allocate what it needs beside the cells. So it is called only if the system
        grants memory for both, or if `again` says that a context of this size was freed a moment ago. None also if the
        heads of the model do not consist of whole blocks of the KV type. May be called by any thread."""
        if not STORED[self.kv_type].fills_blocks(*self.model.head_lengths):
            return None
        size = _BESIDE_BYTES + (0 if self.on_device else self.bytes(cells))
        if self.asks_first and not again and not is_granted(size):
            return None
        params = type(self.params).from_buffer_copy(self.params)
        params.n_ctx, params.flash_attn_type = cells, self.attention_of(cells, crowd=crowd)
        params.n_threads = params.n_threads_batch = threads
        handle = self.create(self.model.handle, params)
        return Context(self, handle, skips=self.skips(cells, crowd=crowd)) if handle else None


class Context:
    """Owns one context of llama.cpp. Used by one thread at a time."""

    def __init__(self, settings: ContextSettings, handle: Any, *, skips: bool) -> None:
        """Takes ownership of `handle`, a llama.cpp context, whose attention `skips` the cells of other sequences."""
        self.settings, self.handle = settings, handle
        self.cells = int(C.llama_n_ctx_seq(handle))  # rounded up by llama.cpp
        self.skips = skips
        self._memory = C.llama_get_memory(handle)
        self._vocabulary = int(C.llama_vocab_n_tokens(C.llama_model_get_vocab(settings.model.handle)))

    @property
    def has_memory(self) -> bool:
        """Whether llama.cpp has a KV cache for this model. For some kinds of models it has none."""
        return bool(self._memory)

    def run(self, batch: Any) -> int:
        """Call llama_decode with the interpreter lock released. Returns its status, 0 for success, when the device has
        finished the batch. Raises EngineError if the weights may have been changed meanwhile."""
        self.settings.model.arrange(int(batch.n_tokens))
        status = int(C.llama_decode(self.handle, batch))
        if status == 0:
            self.wait()
            self.settings.model.check()
        return status

    def logits(self, row: int) -> Any:
        """The logits of the token at `row` of the last batch, float32 of shape (vocabulary,). Valid until the next
        batch."""
        pointer = C.llama_get_logits_ith(self.handle, row)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(self._vocabulary,))

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """Give the source's cells from `start` to before `end`, -1 for all, to the target too. Copies nothing."""
        C.llama_memory_seq_cp(self._memory, source, target, start, end)

    def forget(self, sequence: int, start: int, end: int) -> None:
        """Remove the sequence's cells from `start` to before `end`, -1 for all."""
        removed = C.llama_memory_seq_rm(self._memory, sequence, start, end)
        assert removed, "a plain attention cache can drop any part"

    def save(self, sequence: int, start: int, end: int) -> Bytes:
        """A copy of the sequence's cells from `start` to before `end`. Raises EngineError, and NoMemoryError."""
        settings = self.settings
        # an upper bound: asking llama.cpp for the exact size takes as long as the copy
        size = settings.bytes(end - start) + _STATE_BYTES * (end - start + settings.model.layers + 1)
        saved = _pages(size)
        self.share(sequence, settings.scratch, start, end)
        written = C.llama_state_seq_get_data(self.handle, bytes_of(saved), saved.size, settings.scratch)
        self.forget(settings.scratch, start, end)
        if not written:
            raise EngineError(f"llama.cpp could not save positions {start} to {end} of sequence {sequence}")
        return saved[:written]

    def load(self, cells: Any, sequence: int, start: int, end: int) -> int:
        """Load the saved cells from position `start` to before `end` into the sequence. `cells` are bytes that may be
        changed. There must be room for all saved cells; returns their number. Raises EngineError."""
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
        """The most that llama.cpp saves beside the cells: the logits of the last batch, and the owners of each cell."""
        return 4 * self._vocabulary * self.settings.sequences + (4 << 20)

    def save_all(self, buffer: Bytes | None = None) -> Bytes:
        """Copy all cells, in llama.cpp's format, into `buffer` if it is large enough, else into new memory. Raises
        EngineError, and NoMemoryError."""
        size = C.llama_state_get_size(self.handle)
        held = buffer[:size] if buffer is not None and size <= buffer.size else _pages(size)
        written = C.llama_state_get_data(self.handle, bytes_of(held), held.size)
        if written != held.size:
            raise EngineError(f"llama.cpp saved {written} of {held.size} bytes of its KV cache")
        return held

    def load_all(self, held: Bytes) -> None:
        """Replace all cells by the saved ones, from the first cell on. `held` comes from `save_all` of a context with
        the same settings; its bytes may be changed. Raises EngineError."""
        self._turn(held, cells_of_all)
        read = C.llama_state_set_data(self.handle, bytes_of(held), held.size)
        if read != held.size:
            raise EngineError(f"llama.cpp read {read} of {held.size} bytes of a saved KV cache")
        self.wait()

    def use_threads(self, count: int) -> None:
        """Use `count` threads from the next batch on."""
        C.llama_set_n_threads(self.handle, count, count)

    def wait(self) -> None:
        """Wait until the device has finished its work. llama.cpp returns earlier on a GPU, which would falsify the
        measured time of a batch, and the pauses that the thermal governor asks for."""
        C.llama_synchronize(self.handle)
        if self.settings.answers_late:
            list_devices()

    def close(self) -> None:
        """Free the context. Call nothing afterwards."""
        C.llama_free(self.handle)

    def _turn(self, saved: Bytes, cells: Callable[[Bytes], int]) -> None:
        """Transpose the saved values, if the context that saved them (perhaps in an earlier process) had another kind
        of attention."""
        if self.settings.turns_values:
            layers, token = self.settings.model.layers, self.settings.bytes(1)
            turn(saved, cells(saved), layers, token, transposed=not self.skips)


def _parameters(load: Load) -> Any:
    """All parameters of a context except its size, its attention and its threads."""
    params = C.llama_context_default_params()
    params.n_batch = params.n_ubatch = load.batch
    params.n_seq_max = load.parallel * _SEQUENCES_EACH + 1
    params.kv_unified = True  # sequences share cells
    params.n_outputs_max = params.n_seq_max  # logits of one token a sequence, not of a whole batch: 0.6 MB each
    stored = STORED[load.kv_type]
    params.type_k, params.type_v = stored.keys.ggml, stored.values.ggml
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
    """A pointer to the array's bytes, for llama.cpp. The array must outlive the pointer."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
