"""Measures the fastest settings on this device: weights for prompts, threads, flash attention (for one
request and for many), batch size.

The settings are varied one after the other, each with the best values found so far. A try is real work in a real
context: some tokens of a prompt and some of an answer, at several depths (tokens already in the cache). Filling the
cache to a depth is cheap: the cells of a few tokens are copied as often as needed, as the time that attention takes
does not depend on the content of the cells.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from qwen_edge.core.errors import EngineError
from qwen_edge.core.progress import Stage
from qwen_edge.device.host.cpu import usable_cores
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.bindings import C
from qwen_edge.llama.context import SMALL_ROOM, bytes_of
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import resolve
from qwen_edge.llama.tune_streams import fastest_streams
from qwen_edge.llama.tune_weights import BETTER, any_tokens, fastest_weights
from qwen_edge.protocol.loading import FLASH_ONLY
from qwen_edge.protocol.messages import Attention, Load, Tuning

DEPTHS = (0, 128, 256, 512, 1024, 2048)
_FLASH_CELLS = (SMALL_ROOM, 1024, 2048)  # cells: up to which of these sizes contexts may have flash attention
_PROMPT, _ANSWER = 256, 64  # tokens of the typical request by which tries are compared
_BATCHES = (64, 128, 256, 512)
_SEED = 64  # tokens to compute, whose cells are then copied


@dataclass(frozen=True)
class Speed:
    """Tokens per second of prompt and of answer, with `depth` tokens in the cache."""

    depth: int
    prompt: float
    answer: float

    @property
    def seconds(self) -> float:
        return _PROMPT / self.prompt + _ANSWER / self.answer


@dataclass(frozen=True)
class Try:
    """One setting and its speeds. `seconds`: the time of a typical request."""

    tuning: Tuning
    speeds: tuple[Speed, ...]

    @property
    def seconds(self) -> float:
        """The mean over the depths beyond a small cache: the stored settings are for those."""
        return self.at(SMALL_ROOM, math.inf)[1] or self.at(0, math.inf)[1]

    def at(self, start: float, end: float) -> tuple[float, float]:
        """Seconds to the first token, and of the whole request: the means over the depths from `start` to before `end`;
        0 if none was measured."""
        speeds = [speed for speed in self.speeds if start <= speed.depth < end]
        if not speeds:
            return 0.0, 0.0
        return _PROMPT / statistics.harmonic_mean(one.prompt for one in speeds), statistics.mean(
            one.seconds for one in speeds
        )


@dataclass(frozen=True)
class Effort:
    """The extent of a measurement: depths, tokens, settings to vary, seconds after which no further try starts."""

    depths: tuple[int, ...] = DEPTHS
    prompt: int = 256
    answer: int = 12
    threads: bool = True
    batches: tuple[int, ...] = _BATCHES
    seconds: float = 3600.0

    @staticmethod
    def brief() -> Effort:
        """A measurement of some seconds, for the first start of the daemon. Threads are not varied: while the device
        starts other programs, fewer threads seem better. A large depth is included: a kind of attention that is faster
        in a small cache may take twice as long at 2,048 tokens."""
        return Effort((DEPTHS[1], DEPTHS[-1]), prompt=32, answer=4, threads=False, batches=(), seconds=10.0)


def tune(
    model: Model,
    asked: Load,
    effort: Effort,
    tried: Callable[[Try], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
    stage: Stage | None = None,
) -> Tuning:
    """The best values of the settings that `asked` leaves open. `tried` is called with each try.
    `stage` is told of each speed that is measured, and how many there are. Raises EngineError if the first setting
    cannot be run."""
    load = resolve(model, asked)
    if load.kv_type in FLASH_ONLY:  # not a choice, so not to be kept as one
        asked = replace(asked, flash_attention="on")
    watched = _Watched(model, load, effort, clock, stage or Stage())
    plain_from = fastest_weights(model, load, effort.seconds, clock)
    model.use_plain_weights(plain_from or 0)
    began = clock()
    best, flash_cells = _vary(watched, asked, load, effort, tried, lambda: clock() - began)
    found = _learned(best, flash_cells, plain_from, asked, effort)
    left = effort.seconds - (clock() - began)
    if left <= 0 or found.flash_attention not in ("off", "small"):
        return found  # what is missing is measured at another start
    with watched.crowds():
        return replace(found, flash_streams=fastest_streams(model, _with(load, best.tuning), left, clock))


def completed(model: Model, load: Load, known: Tuning, seconds: float, *, crowds: bool) -> Tuning:
    """`known`, with what has not been measured (by an earlier version, or for lack of time or memory), as far as it can
    be measured within about `seconds`; attention for `crowds` only if no setting has chosen one. `load` is resolved.
    Raises EngineError if there is no memory for a small context."""
    if known.plain_from is None:
        known = replace(known, plain_from=fastest_weights(model, load, seconds))
    if crowds and known.flash_streams is None and load.flash_attention in ("off", "small"):
        model.use_plain_weights(known.plain_from or 0)
        known = replace(known, flash_streams=fastest_streams(model, load, seconds))
    return known


def _vary(
    watched: _Watched,
    asked: Load,
    load: Load,
    effort: Effort,
    tried: Callable[[Try], None],
    passed: Callable[[], float],
) -> tuple[Try, int]:
    """The best of all tries, and up to how many cells contexts are better with flash attention. No try begins after
    `effort.seconds` have `passed`."""
    watched.expect(1 + sum(1 for choices in _CHOICES for _ in choices(_first(load), asked, load, effort)))
    best = watched.measure(_first(load))
    flash_cells = 0
    tried(best)
    for choices in _CHOICES:
        for tuning in choices(best.tuning, asked, load, effort):
            if passed() > effort.seconds:
                return best, flash_cells
            try:
                other = watched.measure(tuning)
            except EngineError:
                continue  # attention not supported by this device, or no memory for the batch
            tried(other)
            if _beats(other, best) or _flash_cells(other, best):
                # measure both again: another program may have slowed one of them down
                watched.expect(2)
                best, other = (watched.measure(one.tuning) for one in (best, other))
                tried(best)
                tried(other)
                flash_cells = flash_cells or _flash_cells(other, best)
                best = other if _beats(other, best) else best
    return best, flash_cells


class _Watched:
    """Measures settings, and tells a stage of each speed that is measured."""

    def __init__(self, model: Model, load: Load, effort: Effort, clock: Callable[[], float], stage: Stage) -> None:
        self._model, self._load, self._effort, self._clock, self._stage = model, load, effort, clock, stage
        self._speeds = len(_depths(model, load, effort))  # of each setting
        self.begin("measuring which weights are faster for prompts")

    def begin(self, doing: str) -> None:
        self._stage.begin(doing)

    @contextmanager
    def crowds(self) -> Iterator[None]:
        """Many requests at once are measured within."""
        self._stage.expect(1)
        self.begin("measuring many requests at once")
        yield
        self._stage(1)

    def expect(self, settings: int) -> None:
        """So many settings will be measured, beside those that were expected before."""
        self._stage.expect(settings * self._speeds)

    def measure(self, tuning: Tuning) -> Try:
        """Raises EngineError if these settings cannot be run; they count as measured all the same."""
        begun = self._stage.done
        self.begin(f"measuring {setting(tuning)}")
        try:
            return measure(self._model, _with(self._load, tuning), self._effort, self._clock, self._stage)
        finally:
            self._stage.reach(begun + self._speeds)


def setting(tuning: Tuning) -> str:
    """The setting of a try, in words."""
    attention = "flash" if tuning.flash_attention == "on" else "plain"
    return f"{tuning.threads} thread{'s' * (tuning.threads != 1)}, {attention} attention, batches of {tuning.batch}"


def _learned(best: Try, flash_cells: int, plain_from: int | None, asked: Load, effort: Effort) -> Tuning:
    """The result: values that were given or not varied are left open."""
    found = best.tuning
    attention: Attention = "small" if flash_cells and found.flash_attention == "off" else found.flash_attention
    return Tuning(
        threads=found.threads if effort.threads and not asked.threads else 0,
        flash_attention=attention if asked.flash_attention == "auto" else "auto",
        batch=found.batch if effort.batches and not asked.batch else 0,
        flash_cells=flash_cells if attention == "small" and asked.flash_attention == "auto" else 0,
        plain_from=plain_from,
    )


def _beats(one: Try, other: Try) -> bool:
    return one.seconds < BETTER * other.seconds


def _flash_cells(flash: Try, plain: Try) -> int:
    """Up to how many cells a context is better with flash attention: the whole request is faster, or the first token
    comes sooner and the whole request takes no longer. 0 if the smallest context is not, or if these are not the two
    kinds of attention."""
    if (flash.tuning.flash_attention, plain.tuning.flash_attention) != ("on", "off"):
        return 0
    best, start = 0, 0
    for cells in _FLASH_CELLS:
        (first, whole), (other_first, other_whole) = flash.at(start, cells), plain.at(start, cells)
        sooner = first < BETTER * other_first and BETTER * whole < other_whole
        if not sooner and not whole < BETTER * other_whole:
            break
        best, start = cells, cells
    return best


def measure(
    model: Model,
    load: Load,
    effort: Effort,
    clock: Callable[[], float] = time.perf_counter,
    measured: Callable[[int], None] = lambda _: None,
) -> Try:
    """Measure the speeds of these settings; `measured` is called with 1 after each. Raises EngineError if they cannot
    be run."""
    speeds, skips = list[Speed](), False
    for depth in _depths(model, load, effort):
        # the size that a growing cache has at this depth: a larger cache is slower
        size = max(depth + max(effort.prompt, _SEED) + effort.answer, load.batch)
        cells = FixedCells(model, replace(load, context=size, parallel=1))
        skips = cells.skips
        try:
            cells.decode([Slice(0, 0, [0], 1)])
            cells.forget(0, 0, 1)
            speeds.append(_speed(cells, depth, effort, clock))
            measured(1)
        finally:
            cells.close()
    return Try(Tuning(load.threads, "on" if skips else "off", load.batch), tuple(speeds))


def _depths(model: Model, load: Load, effort: Effort) -> list[int]:
    """The depths that the context holds."""
    most = min(load.context, model.trained_context)
    return [depth for depth in effort.depths if depth + effort.prompt < most] or [0]


def _speed(cells: FixedCells, depth: int, effort: Effort, clock: Callable[[], float]) -> Speed:
    position = _fill(cells, depth)
    tokens = any_tokens(effort.prompt)
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
    """Fill `depth` cells that belong to sequence 0; return the position behind them."""
    if depth == 0:
        return 0
    for start in range(0, _SEED, cells.batch):
        cells.decode([Slice(0, start, any_tokens(_SEED)[start : start + cells.batch], 0)])
    seed = np.empty(C.llama_state_seq_get_size(cells.context.handle, 0), np.uint8)
    C.llama_state_seq_get_data(cells.context.handle, bytes_of(seed), seed.size, 0)
    for _ in range(depth // _SEED - 1):
        C.llama_state_seq_set_data(cells.context.handle, bytes_of(seed), seed.size, 1)
        cells.share(1, 0, 0, -1)
        cells.forget(1, 0, -1)
    return _SEED


def _first(load: Load) -> Tuning:
    return Tuning(load.threads, load.flash_attention, load.batch)


def _with(load: Load, tuning: Tuning) -> Load:
    return replace(load, threads=tuning.threads, flash_attention=tuning.flash_attention, batch=tuning.batch)


def _threads(best: Tuning, asked: Load, _load: Load, effort: Effort) -> Iterator[Tuning]:
    """All cores but one, and half of them: more cores than the memory bandwidth can feed only produce heat."""
    cores = usable_cores()
    for count in dict.fromkeys((cores - 1, cores // 2)):
        if count > 0 and effort.threads and not asked.threads:
            yield replace(best, threads=count)


def _attention(best: Tuning, asked: Load, _load: Load, _effort: Effort) -> Iterator[Tuning]:
    if asked.flash_attention == "auto":
        yield replace(best, flash_attention="off" if best.flash_attention == "on" else "on")


def _batch(best: Tuning, asked: Load, load: Load, effort: Effort) -> Iterator[Tuning]:
    for batch in effort.batches:
        if not asked.batch and batch != best.batch and load.parallel <= batch <= load.context:
            yield replace(best, batch=batch)


_CHOICES = (_threads, _attention, _batch)
