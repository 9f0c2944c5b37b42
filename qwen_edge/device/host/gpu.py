"""Is there an NVIDIA GPU here, and how is llama.cpp built for it?

A build of llama.cpp without CUDA runs on the CPU, slowly and without a message: the best-known trap on a Jetson. So
the GPU of the machine is compared with the devices the engine really uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwen_edge.device.host.llama_cpp_build import rebuild_bindings

_TEGRA_GPUS = ("dev/nvgpu", "dev/nvhost-gpu", "dev/nvhost-as-gpu")


@dataclass(frozen=True)
class Gpu:
    """`compute` is the architecture number for nvcc (87 on every Orin); "native" lets nvcc detect it."""

    name: str
    compute: str


def find_gpu(root: Path = Path("/")) -> Gpu | None:
    """The NVIDIA GPU that the kernel shows below `root`: a Jetson's own, or a card whose driver is loaded."""
    if (root / "etc/nv_tegra_release").exists() or any((root / path).exists() for path in _TEGRA_GPUS):
        try:
            board = (root / "proc/device-tree/model").read_text(errors="replace").strip("\0 \n")
        except OSError:
            board = "Jetson"
        return Gpu(board, "87" if "Orin" in board else "native")
    if (root / "proc/driver/nvidia/version").exists() or (root / "dev/nvidia0").exists():
        return Gpu("NVIDIA GPU", "native")
    return None


def rebuild_command(gpu: Gpu) -> str:
    """The command that builds llama.cpp with CUDA. Without CUDACXX the build may leave CUDA out without an error."""
    flags = f"-DGGML_CUDA=on -DCMAKE_CUDA_ARCHITECTURES={gpu.compute}"
    return rebuild_bindings(CUDACXX="/usr/local/cuda/bin/nvcc", CMAKE_ARGS=flags)
