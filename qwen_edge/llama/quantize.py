"""llama.cpp's quantizer: an unquantized GGUF file in, a quantized one out, with its standard mix of tensor types or
another one."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_edge.core.errors import EngineError
from qwen_edge.llama.bindings import C
from qwen_edge.llama.importance import Importance

# Rows are converted to f32 and quantized in blocks of this size. llama.cpp's default (8 GiB) converts the whole
# embedding at once, 622 MB for Qwen3-0.6B. The bytes written are the same, and small blocks stay in the processor's
# cache.
_BLOCK_BYTES = 32 << 20


def quantize(
    source: Path,
    target: Path,
    file_type: str,
    threads: int,
    *,
    types: Mapping[str, str] | None = None,
    importance: Importance | None = None,
) -> None:
    """`file_type`: llama.cpp's name, e.g. Q4_K_M. `types`: tensor types that differ from those of the file type, e.g.
    Q8_0, by a regular expression that finds the names of the tensors; the first one that matches counts. `importance`:
    of the columns of each matrix. Blocks until done; llama.cpp logs each tensor. Raises EngineError if llama.cpp
    fails."""
    params = C.llama_model_quantize_default_params()
    params.ftype = getattr(C, f"LLAMA_FTYPE_MOSTLY_{file_type}")
    params.nthread = threads
    params.max_buf_size = _BLOCK_BYTES
    if types:
        params.tt_overrides = _overrides(types)
    if importance:
        params.imatrix = _entries(importance)
    if C.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params)) != 0:
        raise EngineError(f"llama.cpp could not quantize {source} to {file_type}.")


def _overrides(types: Mapping[str, str]) -> Any:
    """llama.cpp's list, which ends with an empty entry."""
    kind = C.llama_model_tensor_override
    entries = [kind(pattern.encode(), getattr(C, f"GGML_TYPE_{name}")) for pattern, name in types.items()]
    return (kind * (len(entries) + 1))(*entries)


def _entries(importance: Importance) -> Any:
    """llama.cpp's list, which ends with an empty entry. The arrays of `importance` must outlive it."""
    kind, floats = C.llama_model_imatrix_data, ctypes.POINTER(ctypes.c_float)
    entries = [kind(name.encode(), values.ctypes.data_as(floats), values.size) for name, values in importance.items()]
    return (kind * (len(entries) + 1))(*entries)
