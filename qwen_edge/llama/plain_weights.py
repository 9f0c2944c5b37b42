"""The weights as the model's file has them, for prompts, beside those that llama.cpp has repacked, for answers.

llama.cpp repacks weights for the vector units of the CPU when it loads them. The repacked weights make a token of an
answer faster, but on x86-64 with VNNI they make a prompt slower than the weights of the file, for which llama.cpp has a
tiled matrix product: a prompt of 213 tokens takes 0.72 of the time with them (EPYC of Zen 4, Q4_K_M).

ggml chooses the kernel of a matrix product by three fields of the weights' tensor: `buffer`, `data` and `extra`
(ggml_cpu_extra_compute_forward, in ggml/src/ggml-cpu/traits.cpp). So one context, with one KV cache, can use both: the
file is mapped, and before a batch the three fields of each repacked tensor are set to one or the other, in 50 us. The
file's pages are the system's page cache: memory that the system takes back when it is short.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_edge.core.errors import EngineError
from qwen_edge.llama.bindings import function
from qwen_edge.llama.devices import list_devices
from qwen_edge.llama.ggml_tensor import Tensor, address_of, is_known
from qwen_edge.llama.gguf_header import Place, places_of_tensors
from qwen_edge.llama.mapped_file import Identity, MappedFile

_REPACKED = b"CPU_REPACK"  # the name of the buffers with repacked weights
_WEIGHTS = 1  # GGML_BACKEND_BUFFER_USAGE_WEIGHTS
_RECENT = 5.0  # seconds from one look at the pages of the file to the next: a look takes 5 ms

_Fields = tuple[int | None, int | None, int | None]  # buffer, data, extra


@dataclass(frozen=True)
class _Pair:
    """One repacked tensor: llama.cpp's own struct, and the values of its fields in either layout."""

    tensor: Tensor
    repacked: _Fields
    plain: _Fields


class PlainWeights:
    """Switches the repacked weights of one loaded model to plain ones and back. Used by the engine's thread, between
    two batches."""

    def __init__(self, model: Any, path: Path, loaded: Identity, clock: Callable[[], float] = time.monotonic) -> None:
        """`model`: the handle of a model that llama.cpp has loaded from the file `path`, without a GPU; `loaded`: the
        identity of that file. Raises EngineError if nothing was repacked, or if this build of llama.cpp does not allow
        the switch."""
        if any(device.kind == "accelerator" for device in list_devices()):
            # a graph that was made for plain weights may give products to BLAS, which cannot read repacked ones
            raise EngineError("llama.cpp was built with an accelerator, which computes with plain weights")
        places = {name: place for name, place in places_of_tensors(path).items() if _is_repacked(model, name)}
        if not places:
            raise EngineError(f"llama.cpp has repacked no weights of {path}, or does not tell which")
        tensors = {name: _known_tensor(model, name, place) for name, place in places.items()}
        try:
            self._file = MappedFile(path, loaded, places.values())
        except (OSError, ValueError) as error:
            raise EngineError(f"{path} cannot be mapped: {error}") from error
        self._buffer = _buffer_of(self._file)
        self._pairs = [
            _Pair(one, (one.buffer, one.data, one.extra), (self._buffer, self._file.address + places[name].start, None))
            for name, one in tensors.items()
        ]
        self._clock, self._looked = clock, -math.inf  # `_looked`: when the pages of the file were last looked at
        self._is_resident = self._in_use = False

    def use(self, plain: bool) -> bool:
        """Compute the next batch with plain weights, or with repacked ones; returns whether with plain ones. The
        repacked ones stay in use if the file has changed since it was loaded, which would give other weights unnoticed,
        or if it is not in memory: to read it from an SD card takes longer than it saves. Then it is read in the
        background, for a later batch. (A context that another thread creates meanwhile only looks at the kind of the
        tensors' buffers, and accepts both.)"""
        wanted = plain and self._file.is_as_loaded and self._is_in_memory()
        if wanted != self._in_use:
            self._in_use = wanted
            for pair in self._pairs:
                pair.tensor.buffer, pair.tensor.data, pair.tensor.extra = pair.plain if wanted else pair.repacked
        return wanted

    def check(self) -> None:
        """After each batch. Raises EngineError if the file has been written to while the batch was computed with it:
        what the cells contain is then not known."""
        if self._in_use and not self._file.is_as_loaded:
            raise EngineError(
                "the model's file was written to while a prompt was computed with it. Replace a model by renaming a "
                "new file over it."
            )

    def close(self) -> None:
        """Switch back to repacked weights, and unmap the file. Call nothing afterwards."""
        self.use(plain=False)
        function("ggml_backend_buffer_free", None, ctypes.c_void_p)(self._buffer)
        self._file.close()

    def _is_in_memory(self) -> bool:
        if self._clock() - self._looked >= _RECENT:
            self._is_resident, self._looked = self._file.is_in_memory, self._clock()
            if not self._is_resident:
                self._file.read_ahead()
        return self._is_resident


def plain_bytes(model: Any, path: Path) -> int:
    """The bytes of the weights of this model that llama.cpp has repacked, or would repack if the model is a simulated
    one; 0 if there are none."""
    return sum(place.size for name, place in places_of_tensors(path).items() if _is_repacked(model, name))


def _is_repacked(model: Any, name: str) -> bool:
    address = address_of(model, name)
    buffer = Tensor.from_address(address).buffer if address and is_known() else None
    get_name = function("ggml_backend_buffer_name", ctypes.c_char_p, ctypes.c_void_p)
    return bool(buffer) and get_name(buffer) == _REPACKED


def _known_tensor(model: Any, name: str, place: Place) -> Tensor:
    """The tensor's own struct. Raises EngineError if the fields that are read and written here are not where llama.cpp
    has them."""
    address = address_of(model, name)
    assert address is not None
    tensor = Tensor.from_address(address)
    data = function("ggml_get_data", ctypes.c_void_p, ctypes.c_void_p)(address)
    size = function("ggml_nbytes", ctypes.c_size_t, ctypes.c_void_p)(address)
    if tensor.name != name.encode() or tensor.data != data or size != place.size or not tensor.extra:
        raise EngineError(f"the tensor {name} of this build of llama.cpp has another layout")
    return tensor


def _buffer_of(file: MappedFile) -> int:
    """A buffer of ggml's over the file, as llama.cpp makes them for weights."""
    make = function("ggml_backend_cpu_buffer_from_ptr", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    buffer: int = make(file.address, file.size)
    function("ggml_backend_buffer_set_usage", None, ctypes.c_void_p, ctypes.c_int)(buffer, _WEIGHTS)
    return buffer
