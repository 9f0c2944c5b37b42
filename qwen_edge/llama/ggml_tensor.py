"""llama.cpp's own tensors, as they lie in this process's memory: what llama_cpp does not declare."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from qwen_edge.core.errors import EngineError
from qwen_edge.llama.bindings import C, function

_GET_TENSOR = "_ZNK11llama_model10get_tensorEPKc"  # llama_model::get_tensor(name), exported by libllama
_COUNT_TENSORS = "_ZNK11llama_model9n_tensorsEv"  # llama_model::n_tensors(), exported by libllama
_OBJECT_BYTES = 32  # GGML_OBJECT_SIZE, of which ggml_tensor_overhead() is the sum with the size of a tensor


class Tensor(ctypes.Structure):
    """struct ggml_tensor of ggml.h. Only valid if `is_known()`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),  # elements of each dimension, the row length first
        ("nb", ctypes.c_size_t * 4),  # stride of each dimension in bytes
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),  # the operands of `op`
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


def is_known() -> bool:
    """Whether a tensor of this build of llama.cpp has the size of the struct above."""
    overhead: int = function("ggml_tensor_overhead", ctypes.c_size_t)()
    return overhead == _OBJECT_BYTES + ctypes.sizeof(Tensor)


def address_of(model: Any, name: str) -> int | None:
    """Where the tensor of this name of a loaded model lies; None if the model has none, or llama.cpp does not tell."""
    try:
        found: int | None = function(_GET_TENSOR, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
            ctypes.cast(model, ctypes.c_void_p), name.encode()
        )
    except AttributeError:
        return None
    return found


def count_of_tensors(model: Any) -> int:
    """How many tensors a loaded model has, or would have if it is a simulated one. Two may have the same name: a tied
    head, if it is not stored as the embedding is. 0 if llama.cpp does not tell."""
    try:
        count: int = function(_COUNT_TENSORS, ctypes.c_size_t, ctypes.c_void_p)(ctypes.cast(model, ctypes.c_void_p))
    except AttributeError:
        return 0
    return count


def rows_of(tensor: Tensor) -> Any:
    """A view of a matrix of f32 numbers in the CPU's memory, of shape (rows, columns). Raises EngineError if the tensor
    is anything else."""
    columns, rows, *more = tensor.ne
    if tensor.type != C.GGML_TYPE_F32 or more != [1, 1] or tensor.nb[0] != ctypes.sizeof(ctypes.c_float):
        raise EngineError(f"the tensor {tensor.name.decode()} of llama.cpp is no matrix of f32 numbers")
    held = (ctypes.c_char * (tensor.nb[1] * (rows - 1) + columns * tensor.nb[0])).from_address(tensor.data or 0)
    return np.ndarray((rows, columns), np.float32, held, strides=(tensor.nb[1], tensor.nb[0]))
