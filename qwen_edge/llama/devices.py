"""The devices llama.cpp was built for and finds on this machine."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from qwen_edge.llama.bindings import C

_KINDS = {0: "CPU", 1: "GPU", 2: "GPU", 3: "accelerator"}  # enum ggml_backend_dev_type; 2 is an integrated GPU


@dataclass(frozen=True)
class Device:
    """One device: its short name in llama.cpp (CUDA0), what the driver calls it, its kind, and its free memory in bytes
    (0 where it does not tell)."""

    name: str
    description: str
    kind: str
    free: int = 0

    def __str__(self) -> str:
        return f"{self.name} ({self.description})"


def list_devices() -> list[Device]:
    """Every device, GPUs and the CPU. A GPU that is missing here will not be used, whatever the settings say."""
    library = C._lib
    get = _function(library, "ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    count = _function(library, "ggml_backend_dev_count", ctypes.c_size_t)
    name = _function(library, "ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    description = _function(library, "ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
    kind = _function(library, "ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    sizes = ctypes.POINTER(ctypes.c_size_t)
    memory = _function(library, "ggml_backend_dev_memory", None, ctypes.c_void_p, sizes, sizes)

    def free(device: int) -> int:
        left, total = ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, left, total)
        return left.value

    return [
        Device(name(device).decode(), description(device).decode(), _KINDS.get(kind(device), "unknown"), free(device))
        for device in map(get, range(count()))
    ]


def built_for_gpu() -> bool:
    """Whether llama.cpp was built with anything beside the CPU, be there such a device now or not."""
    library = C._lib
    count = _function(library, "ggml_backend_reg_count", ctypes.c_size_t)
    get = _function(library, "ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
    name = _function(library, "ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
    return bool({name(get(i)) for i in range(count())} - {b"CPU", b"BLAS"})


def _function(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    """A ggml function that llama_cpp does not declare; the loaded library resolves it among its own dependencies."""
    function = library[name]
    function.restype, function.argtypes = result, list(arguments)
    return function
