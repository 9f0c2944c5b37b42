"""The devices that llama.cpp was built for and finds on this machine."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from qwen_edge.llama.bindings import function

_KINDS = {0: "CPU", 1: "GPU", 2: "GPU", 3: "accelerator"}  # enum ggml_backend_dev_type; 2 is an integrated GPU


@dataclass(frozen=True)
class Device:
    """One device: its short name in llama.cpp (CUDA0), the driver's name, its kind, and its free memory in bytes (0 if
    not reported)."""

    name: str
    description: str
    kind: str
    free: int = 0

    def __str__(self) -> str:
        return f"{self.name} ({self.description})"


def list_devices() -> list[Device]:
    """All devices: GPUs and the CPU. A GPU that is missing here is not used, whatever the settings are."""
    get = function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    count = function("ggml_backend_dev_count", ctypes.c_size_t)
    name = function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    description = function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
    kind = function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    sizes = ctypes.POINTER(ctypes.c_size_t)
    memory = function("ggml_backend_dev_memory", None, ctypes.c_void_p, sizes, sizes)

    def free(device: int) -> int:
        left, total = ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, left, total)
        return left.value

    return [
        Device(name(device).decode(), description(device).decode(), _KINDS.get(kind(device), "unknown"), free(device))
        for device in map(get, range(count()))
    ]


def gpus(gpu_layers: int) -> list[Device]:
    """The GPUs that will compute layers, if `gpu_layers` are to be on GPUs (-1: all)."""
    return [device for device in list_devices() if device.kind == "GPU"] if gpu_layers else []


def built_for_gpu() -> bool:
    """Whether llama.cpp was built for any GPU, even if none is present now."""
    count = function("ggml_backend_reg_count", ctypes.c_size_t)
    get = function("ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
    name = function("ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
    return bool({name(get(i)) for i in range(count())} - {b"CPU", b"BLAS"})
