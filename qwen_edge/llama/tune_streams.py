"""Measures whether flash attention is faster for many requests at once, where it is not for one.

Without it, the token of each request reads the cells of all requests; with it, only those of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack

from msgspec.structs import replace

from qwen_edge.core.errors import EngineError
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import on_gpu
from qwen_edge.llama.tune_weights import any_tokens
from qwen_edge.protocol.loading import FLASH_ONLY
from qwen_edge.protocol.messages import Attention, Load

_STREAMS = (8, 12, 16, 24, 32)  # requests: how many make a crowd
_CELLS = 64  # of each request
_ROUNDS = 4  # steps of either kind, in turn; the fastest counts


def fastest_streams(
    model: Model, load: Load, seconds: float = math.inf, clock: Callable[[], float] = time.perf_counter
) -> int | None:
    """From how many requests at once a step is faster with flash attention: the smallest of some numbers for which it
    is, since more gain more. 0 if none of the numbers is that could be tried: up to `load.parallel`, as long as their
    cells fit into the context, and within `seconds`. None if none could be tried: also on a GPU, with values that are
    quantized, in a cache of which no parts can be copied, and without memory for it. `load` is resolved."""
    began, found = clock(), None
    if on_gpu(load) or load.kv_type in FLASH_ONLY or not model.memory.saves_parts:
        return None
    context = min(load.context, model.trained_context)
    for streams in _STREAMS:
        if streams > load.parallel or _cells(streams) > context or clock() - began >= seconds:
            break
        try:
            flash, plain = _seconds(model, load, streams, clock)
        except EngineError:
            break
        if flash < plain:  # however little: the prompts of a crowd gain more than this step
            return streams
        found = 0
    return found


def _cells(streams: int) -> int:
    return streams * (_CELLS + 1)


def _seconds(model: Model, load: Load, streams: int, clock: Callable[[], float]) -> tuple[float, float]:
    """How long a step of one token for each stream takes with flash attention, and without. Raises EngineError if that
    cannot be run, or there is no memory for both contexts."""
    room, batch = max(_cells(streams), load.batch), max(streams, load.batch)
    asked = replace(load, context=room, parallel=streams, batch=batch)
    seconds: dict[Attention, list[float]] = {"on": [], "off": []}
    with ExitStack() as opened:
        both: dict[Attention, FixedCells] = {}
        for kind in seconds:
            both[kind] = FixedCells(model, replace(asked, flash_attention=kind))
            opened.callback(both[kind].close)
            _fill(both[kind], streams)
        for _ in range(_ROUNDS):
            for kind, cells in both.items():
                seconds[kind].append(_step(cells, streams, clock))
    return min(seconds["on"]), min(seconds["off"])


def _fill(cells: FixedCells, streams: int) -> None:
    """Give each stream _CELLS cells: computed once, copied for the others. The time of a step does not depend on their
    content."""
    tokens = any_tokens(_CELLS)
    for start in range(0, _CELLS, cells.batch):
        cells.decode([Slice(0, start, tokens[start : start + cells.batch], 0)])
    for stream in range(1, streams):
        saved = cells.save(0, 0, _CELLS)  # a copy each: `load` may change the bytes
        if saved is None:
            raise EngineError("there is no memory for a copy of some cells")
        cells.load(saved, stream, 0, _CELLS)


def _step(cells: FixedCells, streams: int, clock: Callable[[], float]) -> float:
    slices = [Slice(stream, _CELLS, [0], 1) for stream in range(streams)]
    began = clock()
    cells.decode(slices)
    seconds = clock() - began
    for one in slices:
        cells.forget(one.sequence, _CELLS, -1)
    return seconds
