"""A context: the KV cache and the buffers to run batches through the model."""

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


class Context:
    """One sequence's worth of KV cache. `decode` runs tokens at given positions; `keep` forgets what follows."""

    def __init__(self, model: Model, load: Load) -> None:
        """As large as `load` asks for, but no larger than the model was trained for. Raises EngineError if there is not
        enough memory."""
        size, batch = min(load.context, model.trained_context), load.batch
        params = C.llama_context_default_params()
        params.n_ctx = size
        params.n_batch = params.n_ubatch = batch
        params.n_seq_max = 1
        params.n_outputs_max = 1  # logits of one token a step: 0.6 MB, not 0.6 MB times the batch
        params.n_threads = params.n_threads_batch = load.threads
        params.type_k = params.type_v = KV_TYPES[load.kv_type]
        params.flash_attn_type = _flash_attention(load)
        params.no_perf = True
        self._context = C.llama_init_from_model(model.handle, params)
        if not self._context:
            raise EngineError(
                f"llama.cpp could not make a context of {size} tokens (KV cache {load.kv_type}). "
                "Lower engine.context or choose a smaller engine.kv_type."
            )
        self.size = int(C.llama_n_ctx_seq(self._context))
        self._memory = C.llama_get_memory(self._context)
        self._batch = C.llama_batch_init(batch, 0, 1)
        self._tokens = _view(self._batch.token, batch, np.int32)
        self._positions = _view(self._batch.pos, batch, np.int32)
        self._wanted = _view(self._batch.logits, batch, np.int8)
        _view(self._batch.n_seq_id, batch, np.int32)[:] = 1
        for i in range(batch):
            self._batch.seq_id[i][0] = 0

    @property
    def handle(self) -> Any:
        return self._context

    def decode(self, tokens: Sequence[int], position: int, *, logits: bool) -> None:
        """Run `tokens` at `position`, `position`+1, ...; with `logits`, those of the last token can be sampled from.

        Blocks for the length of the computation, without the interpreter lock. Raises EngineError; what the cache
        then holds is not known: `keep(0)`.
        """
        n = len(tokens)
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
        vocabulary = C.llama_vocab_n_tokens(C.llama_model_get_vocab(C.llama_get_model(self._context)))
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(vocabulary,))

    def keep(self, length: int) -> None:
        """Forget everything from position `length` on."""
        removed = C.llama_memory_seq_rm(self._memory, 0, length, -1)
        assert removed, "a plain attention cache can drop any tail"

    def close(self) -> None:
        if self._context:
            C.llama_batch_free(self._batch)
            C.llama_free(self._context)
            self._context = None


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
