"""Measures the importance matrix of a model: how large the inputs of each of its matrices are on a text.

A weight counts as much as what it is multiplied with. For each column of a matrix, the importance is the mean square of
the activations that the column meets while the model reads the text. llama.cpp's quantizer then rounds so that the
error of the product, not that of the weights, becomes small. llama.cpp's own program `llama-imatrix` measures the same,
but without the output head.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen_edge.core.errors import EngineError
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.bindings import C, function
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.ggml_tensor import Tensor, is_known, rows_of
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Load

Importance = Mapping[str, npt.NDArray[np.float32]]
"""The importance of each column, by name of the matrix."""

_PIECE = 512  # tokens that are read from an empty cache, as in llama-imatrix
_BATCH = 64  # tokens: llama.cpp computes the logits of all of them, 0.6 MB each
# of a matrix's largest importance, which no column's falls short of: the quantizer must not ignore a column whose input
# was zero on this text
_LEAST = 1e-6


def measure(model: Model, tokens: Sequence[int], threads: int, advance: Callable[[int], None]) -> Importance:
    """Read `tokens`, and return the importance of each matrix that they went through. `model` must not be repacked, nor
    be on a GPU. `advance` gets the number of further tokens read. Raises EngineError."""
    if not is_known():
        raise EngineError("This build of llama.cpp has tensors of another layout: --imatrix does not know them.")
    sums = _Sums()
    load = Load(str(model.path), _PIECE, _BATCH, threads, 0, "f16", "off", 5.0, parallel=_BATCH // 2)
    with closing(FixedCells(model, load, create=sums.context)) as cells:
        for start in range(0, len(tokens), _PIECE):
            piece = tokens[start : start + _PIECE]
            for position in range(0, len(piece), _BATCH):
                some = list(piece[position : position + _BATCH])
                sums.begin()
                cells.decode([Slice(0, position, some, logits=len(some))])  # what has no logits skips the last layer
                if sums.error:
                    raise sums.error
                advance(len(some))
            cells.forget(0, 0, -1)
    return sums.importance()


class _Sums:
    """The squares of all inputs, summed by matrix and column while llama.cpp computes."""

    def __init__(self) -> None:
        self.error: Exception | None = None  # ctypes drops an exception that a callback raises
        self._squares: dict[str, npt.NDArray[np.float64]] = {}
        self._same: dict[str, str] = {}  # matrices with the same input as another one
        self._last = (0, "")  # the input seen last, and the matrix that it was for
        self._op_name = function("ggml_op_name", ctypes.c_char_p, ctypes.c_int)
        self._callback = C.ggml_backend_sched_eval_callback(self._on_node)

    def context(self, model: Any, params: Any) -> Any:
        """Create a llama.cpp context whose nodes are seen here."""
        params.cb_eval = self._callback
        return C.llama_init_from_model(model, params)

    def begin(self) -> None:
        """Expect the next batch."""
        self._last = (0, "")

    def importance(self) -> Importance:
        """Of each column, relative to the mean of its matrix."""
        found = {name: _relative(squares) for name, squares in self._squares.items()}
        return {**found, **{name: found[other] for name, other in self._same.items()}}

    def _on_node(self, address: int, asks: bool, _data: Any) -> bool:
        """Before a node is computed (`asks`): whether it is of interest. Afterwards: whether to go on."""
        try:
            node = Tensor.from_address(address)
            name = self._matrix(node)
            if name and not asks:
                rows = rows_of(Tensor.from_address(node.src[1])).astype(np.float64)
                self._squares[name] = self._squares.get(name, 0.0) + np.square(rows).sum(axis=0)
            return not asks or bool(name and self._is_new(name, node.src[1]))
        except Exception as error:  # raised by `measure`
            self.error = error
            return False

    def _is_new(self, name: str, address: int) -> bool:
        """Whether the input at `address` is another than that of the product before. Those of queries, keys and values
        are the same, and each look takes time: llama.cpp's threads stop for it."""
        if self._last[0] == address and name != self._last[1]:
            self._same[name] = self._last[1]
            return False
        self._last = (address, name)
        return True

    def _matrix(self, node: Tensor) -> str | None:
        """The name of the matrix of weights in a matrix product; None for another node."""
        if self._op_name(node.op) != b"MUL_MAT":
            return None
        name: str = Tensor.from_address(node.src[0]).name.decode("utf-8", "replace")
        return name if name.endswith(".weight") else None


def _relative(squares: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    if not np.isfinite(squares).all():
        raise EngineError("the model computes values that are not finite numbers on the text of --imatrix")
    most = squares.max()
    if not most:
        return np.ones(squares.size, np.float32)
    lifted = np.maximum(squares, most * _LEAST)
    relative: npt.NDArray[np.float32] = (lifted / lifted.mean()).astype(np.float32)
    return relative
