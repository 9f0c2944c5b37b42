"""Measures from how many tokens on a batch is faster with the weights as the file has them than with repacked ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from msgspec.structs import replace

from qwen_edge.kv.slice import Slice
from qwen_edge.llama.context import SMALL_ROOM
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import on_gpu
from qwen_edge.protocol.messages import Load

BETTER = 0.97  # a setting is better if it takes at most this share of the time; a smaller gain may be chance
_PLAIN_FROM = (24, 48, 128)  # tokens: from which of these on batches may use plain weights
_ROUNDS = 2  # measurements of either kind of weights, in turn; the fastest counts


def fastest_weights(
    model: Model, load: Load, seconds: float = math.inf, clock: Callable[[], float] = time.perf_counter
) -> int | None:
    """From how many tokens on a batch is computed faster with plain weights (`Model.use_plain_weights`): the smallest
    of some sizes for which it is, since larger batches gain more. 0 if no size is, or none was found within `seconds`;
    None if the weights of the file are not in memory, so that this cannot be measured. `load` is resolved. Raises
    EngineError if there is no memory for a small context."""
    if on_gpu(load) or not model.use_plain_weights(1):
        return 0
    began, cells = clock(), FixedCells(model, replace(load, context=SMALL_ROOM, batch=max(_PLAIN_FROM), parallel=1))
    try:
        for tokens in _PLAIN_FROM:
            if clock() - began > seconds:
                return 0
            measured = _seconds_by_weights(model, cells, tokens, clock)
            if measured is None or measured[0] < BETTER * measured[1]:
                return None if measured is None else tokens
    finally:
        cells.close()
        model.use_plain_weights(0)
    return 0


def _seconds_by_weights(
    model: Model, cells: FixedCells, tokens: int, clock: Callable[[], float]
) -> tuple[float, float] | None:
    """How long a batch of this many tokens takes with plain weights, and with repacked ones; None if the plain ones
    cannot be used now."""
    seconds: dict[int, list[float]] = {1: [], 0: []}
    for least in (1, 0) * _ROUNDS:
        model.use_plain_weights(least)
        if least and not model.arrange(tokens):
            return None
        began = clock()
        cells.decode([Slice(0, 0, any_tokens(tokens), 1)])
        seconds[least].append(clock() - began)
        cells.forget(0, 0, -1)
    return min(seconds[1]), min(seconds[0])


def any_tokens(count: int) -> list[int]:
    """Ids that exist in every vocabulary."""
    return [number % 16 for number in range(count)]
