"""llama.cpp's quantizer: an unquantized GGUF file in, a quantized one out, with its standard mix of tensor types."""

from __future__ import annotations

import ctypes
from pathlib import Path

from qwen_edge.core.errors import EngineError
from qwen_edge.llama.bindings import C

# Rows are converted to f32 and quantized in blocks of this size. llama.cpp's default (8 GiB) converts the whole
# embedding at once, 622 MB for Qwen3-0.6B. The bytes written are the same, and small blocks stay in the processor's
# cache.
_BLOCK_BYTES = 32 << 20


def quantize(source: Path, target: Path, file_type: str, threads: int, head: str | None = None, *, tied: bool) -> None:
    """`file_type`: llama.cpp's name, e.g. Q4_K_M. `head`: tensor type of the output head, e.g. Q8_0 (of the embedding,
    if the head is `tied` to it). Blocks until done; llama.cpp logs each tensor. Raises EngineError if llama.cpp
    fails."""
    params = C.llama_model_quantize_default_params()
    params.ftype = getattr(C, f"LLAMA_FTYPE_MOSTLY_{file_type}")
    params.nthread = threads
    params.max_buf_size = _BLOCK_BYTES
    if head and tied:
        params.token_embedding_type = getattr(C, f"GGML_TYPE_{head}")
    elif head:
        params.output_tensor_type = getattr(C, f"GGML_TYPE_{head}")
    if C.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params)) != 0:
        raise EngineError(f"llama.cpp could not quantize {source} to {file_type}.")
