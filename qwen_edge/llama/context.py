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

from qwen_edge.errors import EngineError
from qwen_edge.llama.bindings import C
from qwen_edge.llama.devices import list_devices
from qwen_edge.llama.model import Model
from qwen_edge.messages import Load

KV_TYPES = {"f16": C.GGML_TYPE_F16, "q8_0": C.GGML_TYPE_Q8_0, "q4_0": C.GGML_TYPE_Q4_0}
# bytes per element: blocks of 32 values, with a 2-byte scale where quantized
KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}

_FIRST_ROOM = 1024  # tokens: a smart home's prompt and answer


class Context:
    """One sequence's worth of KV cache. `decode` runs tokens at given positions; `keep` forgets what follows."""

    def __init__(self, model: Model, load: Load, room: int = _FIRST_ROOM) -> None:
        """For as many tokens as `load` asks for, but no more than the model was trained for; there is space for `room`
        of them at first. Raises EngineError if there is not enough memory."""
        self.size = min(load.context, model.trained_context)
        self._model, self._kv_type = model, load.kv_type
        self._params = _parameters(load)
        self._vocabulary = C.llama_vocab_n_tokens(C.llama_model_get_vocab(model.handle))
        self._open(min(room, self.size))
        batch = load.batch
        self._batch = C.llama_batch_init(batch, 0, 1)
        self._tokens = _view(self._batch.token, batch, np.int32)
        self._positions = _view(self._batch.pos, batch, np.int32)
        self._wanted = _view(self._batch.logits, batch, np.int8)
        _view(self._batch.n_seq_id, batch, np.int32)[:] = 1
        for i in range(batch):
            self._batch.seq_id[i][0] = 0

    @property
    def handle(self) -> Any:
        """llama.cpp's context. Another one after the cache has grown: do not keep it."""
        return self._context

    @property
    def bytes_to_come(self) -> int:
        """What the cache will have grown by when the context is full."""
        element = KV_BYTES[self._kv_type]
        return self._model.kv_bytes_per_token(element, element) * max(0, self.size - self._room)

    def decode(self, tokens: Sequence[int], position: int, *, logits: bool) -> None:
        """Run `tokens` at `position`, `position`+1, ...; with `logits`, those of the last token can be sampled from.

        Blocks for the length of the computation, without the interpreter lock; where the cache must grow first, for
        the time it takes to copy it as well. Raises EngineError; what the cache then holds is not known.
        """
        n = len(tokens)
        self._make_room(position + n)
        self._batch.n_tokens = n
        self._tokens[:n] = tokens
        self._positions[:n] = np.arange(position, position + n, dtype=np.int32)
        self._wanted[:n] = 0
        self._wanted[n - 1] = logits
        status = C.llama_decode(self._context, self._batch)
        if status != 0:
            raise EngineError(f"llama_decode returned {status} for {n} tokens at position {position}")

    def logits(self) -> Any:
        """The last token's logits, float32 of shape (vocabulary,); valid until the next decode."""
        pointer = C.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(self._vocabulary,))

    def keep(self, length: int) -> None:
        """Forget everything from position `length` on."""
        removed = C.llama_memory_seq_rm(self._memory, 0, length, -1)
        assert removed, "a plain attention cache can drop any tail"

    def close(self) -> None:
        if self._context:
            C.llama_batch_free(self._batch)
            self._free()

    def _make_room(self, tokens: int) -> None:
        """Move to a cache of twice the room when `tokens` do not fit: the old one is gone before the new one is made,
        so that both are never in memory, only the new one and what the old one held."""
        if tokens > self.size:
            raise EngineError(f"{tokens} tokens are more than the context of {self.size} holds.")
        if tokens > self._room:
            held = self._save()
            self._free()
            self._open(min(self.size, max(tokens, 2 * self._room)))
            self._restore(held)

    def _open(self, room: int) -> None:
        self._params.n_ctx = room
        self._context = C.llama_init_from_model(self._model.handle, self._params)
        if not self._context:
            raise EngineError(
                f"llama.cpp could not make a context of {room} tokens (KV cache {self._kv_type}). "
                "Lower engine.context or choose a smaller engine.kv_type."
            )
        self._room = int(C.llama_n_ctx_seq(self._context))  # rounded up by llama.cpp
        self._memory = C.llama_get_memory(self._context)

    def _free(self) -> None:
        C.llama_free(self._context)
        self._context = None

    def _save(self) -> np.ndarray[Any, Any]:
        """What the cache holds, in llama.cpp's form."""
        held = np.empty(C.llama_state_seq_get_size(self._context, 0), np.uint8)
        written = C.llama_state_seq_get_data(self._context, _bytes_of(held), held.size, 0)
        if written != held.size:
            raise EngineError(f"llama.cpp saved {written} of {held.size} bytes of its KV cache")
        return held

    def _restore(self, held: np.ndarray[Any, Any]) -> None:
        read = C.llama_state_seq_set_data(self._context, _bytes_of(held), held.size, 0)
        if read != held.size:
            raise EngineError(f"llama.cpp read {read} of {held.size} bytes of a saved KV cache")


def _parameters(load: Load) -> Any:
    """Everything about a context but its size."""
    params = C.llama_context_default_params()
    params.n_batch = params.n_ubatch = load.batch
    params.n_seq_max = 1
    params.n_outputs_max = 1  # logits of one token a step: 0.6 MB, not 0.6 MB times the batch
    params.n_threads = params.n_threads_batch = load.threads
    params.type_k = params.type_v = KV_TYPES[load.kv_type]
    params.flash_attn_type = _flash_attention(load)
    params.no_perf = True
    return params


def _flash_attention(load: Load) -> int:
    """The setting in llama.cpp's terms. `auto` is on where a quantized cache needs it, llama.cpp's own choice on a GPU,
    and off on a CPU, where it is slower the longer the context: 1.8 times at 2,048 tokens."""
    if load.flash_attention != "auto":
        return int(load.flash_attention == "on")
    if load.kv_type != "f16":
        return int(C.LLAMA_FLASH_ATTN_TYPE_ENABLED)
    on_gpu = load.gpu_layers != 0 and any(device.kind == "GPU" for device in list_devices())
    return int(C.LLAMA_FLASH_ATTN_TYPE_AUTO if on_gpu else C.LLAMA_FLASH_ATTN_TYPE_DISABLED)


def _view(pointer: Any, length: int, dtype: Any) -> np.ndarray[Any, Any]:
    """A numpy array over C memory: one assignment instead of a ctypes call per element."""
    return np.ctypeslib.as_array(pointer, shape=(length,)).view(dtype)


def _bytes_of(array: np.ndarray[Any, Any]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
