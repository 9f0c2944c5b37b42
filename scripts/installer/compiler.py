"""The C++ compiler that llama.cpp is built with, and how it is built for this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from scripts.installer.console import give_up


def check_compiler() -> None:
    """A compiler that cannot compile is as good as none: a C++ program is tried."""
    remedy = "Install it: sudo apt install build-essential"
    compiler = _compiler()
    if compiler is None:
        give_up(f"There is no C++ compiler to build llama.cpp with. {remedy}")
    tried = _compile(compiler)
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip().splitlines()
        give_up(f"The C++ compiler {compiler} does not work ({said[-1] if said else 'no output'}). {remedy}")


def build_flags() -> Mapping[str, str]:
    """The environment's variables that build for this machine, beside what the user has set."""
    environment = {name: f"{os.environ.get(name, '')} {without_amx()}".strip() for name in ("CFLAGS", "CXXFLAGS")}
    if "CMAKE_ARGS" in os.environ:
        return environment
    flags = ["-DLLAVA_BUILD=OFF"]  # the multimodal part: not used, a third of the compile time
    from qwen_edge.device.host.gpu import find_gpu  # of this checkout, seldom needed

    gpu = find_gpu()
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if gpu and nvcc:
        print(f"building for {gpu.name} with {nvcc}", flush=True)
        flags += ["-DGGML_CUDA=on", f"-DCMAKE_CUDA_ARCHITECTURES={gpu.compute}"]
        environment["CUDACXX"] = nvcc
    elif gpu:
        print(f"{gpu.name} is here, but nvcc is not: building for the CPU only (sudo apt install cuda-toolkit)")
    environment["CMAKE_ARGS"] = " ".join(flags)
    return environment


def without_amx(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Flags for a processor with AMX, which are those of servers: llama.cpp's code for it ends in a segmentation fault,
    with GCC 12.2 at the first long prompt (https://github.com/ggml-org/llama.cpp/issues/20824)."""
    try:
        units = set(re.findall(r"\bamx_(tile|int8|bf16)\b", cpuinfo.read_text()))
    except OSError:
        return ""
    flags = [f"-mno-amx-{unit}" for unit in sorted(units)]
    # a compiler that does not know AMX does not use it
    known = flags and (compiler := _compiler()) and _compile(compiler, *flags).returncode == 0
    return " ".join(flags) if known else ""


def _compiler() -> str | None:
    return os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)


def _compile(compiler: str, *flags: str) -> subprocess.CompletedProcess[bytes]:
    program = b"#include <thread>\nint main() { std::thread([] {}).join(); }\n"
    command = [*compiler.split(), *flags, "-x", "c++", "-std=c++17", "-pthread", "-", "-o", "/dev/null"]
    return subprocess.run(command, input=program, capture_output=True, check=False)
