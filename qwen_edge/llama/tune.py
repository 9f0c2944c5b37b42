"""Measures what is quickest on this device: threads, attention, and how many tokens of a prompt to compute at once.

One after the other, each with the best of what was measured before. A try is real work in a real context: some tokens
of a prompt and some of an answer, at several depths. The depth costs next to nothing: what a few tokens left in the
cache is copied until there is enough of it, as how long attention takes does not depend on what it reads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from qwen_edge.core.errors import EngineError
from qwen_edge.device.host.cpu import usable_cores
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.bindings import C
from qwen_edge.llama.context import SMALL_ROOM, bytes_of
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import resolve
from qwen_edge.protocol.messages import Attention, Load, Tuning

DEPTHS = (0, 512, 2048)
_PROMPT, _ANSWER = 256, 64  # tokens of the request that tries are compared by
_BATCHES = (64, 128, 256, 512)
_BETTER = 0.97  # of the time, at most: less may be chance
_SEED = 64  # tokens that are computed to be copied


@dataclass(frozen=True)
class Speed:
    """Tokens a second behind so many tokens, of a prompt and of an answer."""

    depth: int
    prompt: float
    answer: float

    @property
    def seconds(self) -> float:
        return _PROMPT / self.prompt + _ANSWER / self.answer


@dataclass(frozen=True)
class Try:
    """One setting and how quick it was. `seconds` are those of a typical request."""

    tuning: Tuning
    speeds: tuple[Speed, ...]

    @property
    def seconds(self) -> float:
        """At the depths where caches are not small, of which the settings are kept."""
        deep = [speed.seconds for speed in self.speeds if speed.depth >= SMALL_ROOM]
        return statistics.mean(deep or [speed.seconds for speed in self.speeds])


@dataclass(frozen=True)
class Effort:
    """How long to measure: at which depths, with how many tokens, and which settings."""

    depths: tuple[int, ...] = DEPTHS
    prompt: int = 256
    answer: int = 12
    threads: bool = True
    batches: tuple[int, ...] = _BATCHES
    seconds: float = 3600.0

    @staticmethod
    def brief() -> Effort:
        """Some seconds, for a first start. After so many, nothing further is tried. Not threads: a device has much else
        to do when it starts, and while it does, fewer of them seem better. But also far from the beginning: attention
        that is quicker in the middle of a small cache may take twice as long at 2,048 tokens."""
        return Effort((SMALL_ROOM // 2, DEPTHS[-1]), prompt=32, answer=4, threads=False, batches=(), seconds=10.0)


def tune(
    model: Model,
    asked: Load,
    effort: Effort,
    tried: Callable[[Try], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuning:
    """The best of what `asked` leaves open. `tried` hears of every setting's first try. Raises EngineError if not even
    the first one can be run."""
    began = clock()
    load = resolve(model, asked)
    best = measure(model, load, effort, clock)
    small = False
    tried(best)
    for choices in (_threads, _attention, _batch):
        for tuning in choices(best.tuning, asked, load, effort):
            if clock() - began > effort.seconds:
                return _learned(best, small, asked, effort)
            try:
                other = measure(model, _with(load, tuning), effort, clock)
            except EngineError:
                continue  # a kind of attention that this device does not have, or no memory for the batch
            tried(other)
            if _beats(other, best) or _is_for_small(other, best):
                # once more, in turn: something else on this machine may have slowed one of them
                best, other = (measure(model, _with(load, one.tuning), effort, clock) for one in (best, other))
                small = small or _is_for_small(other, best)
                best = other if _beats(other, best) else best
    return _learned(best, small, asked, effort)


def _learned(best: Try, small: bool, asked: Load, effort: Effort) -> Tuning:
    """What has been found out; what was given or not looked at is left open."""
    found = best.tuning
    attention: Attention = "small" if small and found.flash_attention == "off" else found.flash_attention
    return Tuning(
        threads=found.threads if effort.threads and not asked.threads else 0,
        flash_attention=attention if asked.flash_attention == "auto" else "auto",
        batch=found.batch if effort.batches and not asked.batch else 0,
    )


def _beats(one: Try, other: Try) -> bool:
    return one.seconds < _BETTER * other.seconds


def _is_for_small(flash: Try, plain: Try) -> bool:
    """Whether with flash attention, while there is little in the cache, the first word comes sooner and the last one no
    later."""
    kinds = (flash.tuning.flash_attention, plain.tuning.flash_attention)
    first, other = flash.speeds[0], plain.speeds[0]
    sooner = other.prompt < _BETTER * first.prompt and _BETTER * first.seconds < other.seconds
    return kinds == ("on", "off") and first.depth < SMALL_ROOM and sooner


def measure(model: Model, load: Load, effort: Effort, clock: Callable[[], float] = time.perf_counter) -> Try:
    """How quick these settings are. Raises EngineError if they cannot be run."""
    depths = [depth for depth in effort.depths if depth + effort.prompt < min(load.context, model.trained_context)]
    speeds, skips = list[Speed](), False
    for depth in depths or [0]:
        # as large as a cache is that has grown to hold so much: a larger one is slower
        size = max(depth + max(effort.prompt, _SEED) + effort.answer, load.batch)
        cells = FixedCells(model, replace(load, context=size, parallel=1))
        skips = cells.skips
        try:
            cells.decode([Slice(0, 0, [0], 1)])
            cells.forget(0, 0, 1)
            speeds.append(_speed(cells, depth, effort, clock))
        finally:
            cells.close()
    return Try(Tuning(load.threads, "on" if skips else "off", load.batch), tuple(speeds))


def _speed(cells: FixedCells, depth: int, effort: Effort, clock: Callable[[], float]) -> Speed:
    position = _fill(cells, depth)
    tokens = _tokens(effort.prompt)
    began = clock()
    for start in range(0, effort.prompt, cells.batch):
        part = tokens[start : start + cells.batch]
        cells.decode([Slice(0, position + start, part, int(start + len(part) == effort.prompt))])
    prompt = effort.prompt / (clock() - began)
    seconds = []
    for number in range(effort.answer):
        began = clock()
        cells.decode([Slice(0, position + effort.prompt + number, tokens[:1], 1)])
        seconds.append(clock() - began)
    cells.forget(0, 0, -1)
    return Speed(depth, prompt, 1 / float(np.median(seconds)))


def _fill(cells: FixedCells, depth: int) -> int:
    """Make so many cells that sequence 0 holds; returns the position behind them."""
    if depth == 0:
        return 0
    for start in range(0, _SEED, cells.batch):
        cells.decode([Slice(0, start, _tokens(_SEED)[start : start + cells.batch], 0)])
    seed = np.empty(C.llama_state_seq_get_size(cells.context.handle, 0), np.uint8)
    C.llama_state_seq_get_data(cells.context.handle, bytes_of(seed), seed.size, 0)
    for _ in range(depth // _SEED - 1):
        C.llama_state_seq_set_data(cells.context.handle, bytes_of(seed), seed.size, 1)
        cells.share(1, 0, 0, -1)
        cells.forget(1, 0, -1)
    return _SEED


def _tokens(count: int) -> list[int]:
    return [number % 16 for number in range(count)]  # every vocabulary has these


def _with(load: Load, tuning: Tuning) -> Load:
    return replace(load, threads=tuning.threads, flash_attention=tuning.flash_attention, batch=tuning.batch)


def _threads(best: Tuning, asked: Load, _load: Load, effort: Effort) -> Iterator[Tuning]:
    """All cores but one, and half of them: more of them than the memory can feed only make heat."""
    cores = usable_cores()
    for count in dict.fromkeys((cores - 1, cores // 2)):
        if count > 0 and effort.threads and not asked.threads:
            yield replace(best, threads=count)


def _attention(best: Tuning, asked: Load, load: Load, _effort: Effort) -> Iterator[Tuning]:
    if asked.flash_attention == "auto" and load.kv_type == "f16":  # the other types need it
        yield replace(best, flash_attention="off" if best.flash_attention == "on" else "on")


def _batch(best: Tuning, asked: Load, load: Load, effort: Effort) -> Iterator[Tuning]:
    for batch in effort.batches:
        if not asked.batch and batch != best.batch and load.parallel <= batch <= load.context:
            yield replace(best, batch=batch)
