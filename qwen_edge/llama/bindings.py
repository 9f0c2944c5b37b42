"""The C functions of llama.cpp, and its log.

`C` is llama_cpp.llama_cpp, the plain ctypes layer. The package's `__init__` would also import chat formats, jinja2, a
disk cache and multiprocessing, which are not used here: 0.15 s and 15 MB at every start of the engine.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, MutableMapping
from importlib.metadata import version
from typing import Any

from qwen_edge.core.errors import EngineError
from qwen_edge.device.host.llama_cpp_build import install_bindings

ERROR = 4  # a value of ggml_log_level
# How often GCC's OpenMP looks whether the other threads are ready before it lets a thread sleep: for a twentieth of a
# millisecond. Without another program this is as quick as OpenMP's own choice, some milliseconds. But a thread that
# waits in this way for another one, which cannot run because a program has its core, keeps that core from both: a token
# then took a hundred times as long. On x86 a look takes some ten times as long, as its loop has a pause instruction.
# (libgomp manual, "GOMP_SPINCOUNT"; benchmarks/README.md)
_SPINS = "3000" if platform.machine().lower() in ("x86_64", "amd64") else "30000"


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let llama.cpp's threads sleep soon while they wait for each other, unless the user has decided how they wait.
    OpenMP reads the environment when llama.cpp is loaded."""
    if not environment.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        environment["GOMP_SPINCOUNT"] = _SPINS


def _import_bindings() -> Any:
    limit_spinning()
    if "llama_cpp" in sys.modules:
        return importlib.import_module("llama_cpp.llama_cpp")
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None:
        raise EngineError(f"llama-cpp-python is not installed. Install it: {install_bindings()}")
    sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    finally:
        # a later import of the package gets the real one, which reuses the module loaded here
        del sys.modules["llama_cpp"]


C: Any = _import_bindings()

_log_callback: Any = None  # one logger per process; llama.cpp does not keep a reference to the callback


def send_log_to(sink: Callable[[int, str], None]) -> None:
    """Pass every log line of llama.cpp to `sink(level, text)`, in the thread that logs."""

    def receive(level: int, text: bytes, _user_data: Any) -> None:
        sink(level, text.decode("utf-8", "replace"))

    global _log_callback  # noqa: PLW0603 - see above
    _log_callback = C.llama_log_callback(receive)
    C.llama_log_set(_log_callback, None)


def versions() -> dict[str, str]:
    """The versions of llama.cpp and its bindings, for the manifest and for `doctor`."""
    return {"llama-cpp-python": version("llama-cpp-python"), "llama.cpp": C.llama_version().decode()}


def function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml that llama_cpp does not declare; it is found in the dependencies of the loaded library."""
    found = C._lib[name]
    found.restype, found.argtypes = result, list(arguments)
    return found


def build() -> str:
    """The version of llama.cpp, and the instruction sets and devices it was compiled for."""
    features = C.llama_print_system_info().decode().replace(" = 1", "").replace(" |", "").split()
    return f"llama.cpp {C.llama_version().decode()}, {' '.join(features)}"


def uses_amx() -> bool:
    """Whether llama.cpp was compiled for AMX, the matrix units of server processors, and this processor has them."""
    return b"AMX_INT8 = 1" in C.llama_print_system_info()
