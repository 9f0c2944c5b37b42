"""The cells of a KV cache that grows: owns one llama.cpp context, and replaces it by a larger or a smaller one.

The cache starts small and grows up to the configured size: most conversations never need all of it, and llama.cpp
writes to every byte that it allocates.

Without flash attention, llama.cpp stores the values of one channel with the length of the cache as stride, and reads
the cells in use, rounded up to a whole block. In a cache no larger than that, this read is contiguous: a token takes a
tenth less time than in a cache of twice the length (7 % at 300 tokens, 11 % at 2,048 and at 6,144, on an EPYC of
Zen 4). So without flash attention the cache grows block by block. It doubles with flash attention, on a GPU, and where
no larger cache could be built in time.

If flash attention is faster only in a small cache, enable it in the small cache and disable it in larger ones. If it is
faster when many requests run at once (without it, each of them reads the cells of all), move to a cache that has it
when they come, and to one without it when they have gone.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from qwen_edge.core.errors import EngineError
from qwen_edge.device.host.memory import available_bytes
from qwen_edge.kv.layout import Layout
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.background_growth import BackgroundGrowth
from qwen_edge.llama.context import SMALL_ROOM, Context, Create, NoMemoryError
from qwen_edge.llama.fixed_cells import NO_ROOM, FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import free_bytes, on_gpu
from qwen_edge.protocol.messages import Load

_BLOCK = 256  # cells
FIRST_ROOM = SMALL_ROOM  # tokens: a question and its answer
_SHRINK_FACTOR = 1.1  # an idle cache that is this much larger than needed is shrunk; saving less is not worth a copy
_SPARE_ROOM = 128  # cells to allocate beyond those in use, so that a short turn needs no growth; at least half of them
_SWITCH_MARGIN_CELLS = 32  # free cells left when the larger cache is switched to: hardly any decoding step needs more
_SPARE_BYTES = 256 << 20  # of the system's memory that a growth leaves free wherever there is a choice
# Seconds that one empty cell adds to each token (three times that in a stream). Moving cells together costs _MOVE,
# plus _MOVE_STRETCH for each contiguous stretch of cells, plus _MOVE_CELL for each cell.
_EMPTY, _MOVE, _MOVE_STRETCH, _MOVE_CELL = 3e-6, 0.02, 0.002, 5e-5
_LONGEST_MOVE = 0.25  # seconds: half of the longest pause that a stream may have
_CROWD_SECONDS = 30.0  # after which many requests are no longer expected
_AGAIN = 30.0  # seconds to wait, after memory was too short for a background growth, before the next attempt


class GrowingCells(FixedCells):
    """Cells that are allocated as they are needed. `expect` moves scattered cells together."""

    def __init__(
        self,
        model: Model,
        load: Load,
        room: int | None = None,
        *,
        create: Create | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """As FixedCells. Without `room`, the first cache fits a short conversation, or the tokens that
        `load.awaited` announces."""
        self._crowd_until = -math.inf  # clock time: long enough after the last crowd, flash attention is not needed
        awaited = load.awaited + _SPARE_ROOM if load.awaited else 0
        self._clock = clock
        super().__init__(model, load, max(room or FIRST_ROOM, awaited), create=create)
        self._layout = Layout(self.sequences + 1, whole_blocks(self.size))
        # clock time from which a background growth may start; never on a GPU, where it would slow decoding down
        self._quiet_from = math.inf if on_gpu(load) else 0.0
        self.growing: BackgroundGrowth | None = None  # the next context, larger or with other attention, in the making
        self._lost = False  # the old context was freed, and memory was too short for another
        self._least_room = max(min(FIRST_ROOM, self.size), self.batch)

    def decode(self, slices: Sequence[Slice]) -> None:
        """As `FixedCells.decode`. If the cache must grow first (the caller has not called `make_room`), the call also
        blocks while the cells are copied."""
        super().decode(slices)
        for one in slices:
            self._layout.fill(one.sequence, one.position, one.position + len(one.tokens))

    def share(self, source: int, target: int, start: int, end: int) -> None:
        super().share(source, target, start, end)
        self._layout.share(source, target, start, end)

    def forget(self, sequence: int, start: int, end: int) -> None:
        super().forget(sequence, start, end)
        self._layout.drop(sequence, start, end)

    def load(self, saved: Any, sequence: int, start: int, end: int) -> None:
        count, scratch = self._context.load(saved, sequence, start, end), self.settings.scratch
        self._layout.fill(scratch, start, start + count)
        self._layout.share(scratch, sequence, start, end)
        self._layout.drop(scratch, 0, start + count)

    def expect(self, staying: int, leaving: int, soon: int, later: int, streams: int) -> None:
        """If `staying + soon` exceeds the room, or so many streams need another kind of attention, start to build
        another cache in the background, if memory allows. Switch to it when it is ready and no cells are about to be
        freed; if `later` is no more than `soon` (a single answer), only when the old cache is almost full, because
        decoding is faster in the smaller cache.

        If empty cells lie between cells in use, move the cells in use together where that saves time: attention
        without skipping reads every cell up to the last one in use."""
        if self.settings.is_crowd(streams):
            self._crowd_until = self._clock() + _CROWD_SECONDS
        needed = min(staying + soon, self.size)
        if self.growing and self.growing.ready:
            turns = not self.growing.context or self.growing.context.skips != self.skips
            if self._suits(needed) or (needed <= self.room and not turns):
                self._call_off()
            elif ((later > soon or turns) and not leaving) or staying + leaving + _SWITCH_MARGIN_CELLS > self.room:
                self._switch()
        if not leaving and self._is_worth_moving(staying, soon):
            self._close_up()
        if self.growing or self._suits(needed) or self._clock() < self._quiet_from:
            return
        if needed <= self.room and _MOVE_CELL * staying > _LONGEST_MOVE:
            return  # to change the attention only is not worth such a pause
        room, crowd = min(self.size, whole_blocks(staying + later)), self._is_crowded
        if self.settings.skips(room, crowd=crowd):
            room = self._enough(needed)
        copied, most = (self.settings.bytes(cells) + self._context.most_bytes_beside for cells in (staying, self.room))
        if self._has_memory(self.settings.bytes(room) + most):
            try:
                make = partial(self.settings.open, room, self._threads, crowd=crowd)
                self.growing = BackgroundGrowth(make, self._has_memory, room, copied, most)
            except (MemoryError, RuntimeError):  # no memory for the buffer or the thread
                self._quiet_from = self._clock() + _AGAIN

    def make_room(self, cells: int) -> bool:
        if self.growing and self.growing.room < cells:
            self._call_off()
        while self.room < min(cells, self.size):
            if not self._grow(min(cells, self.size)):
                return False
        return True

    def fit(self, cells: int) -> None:
        """Shrink a cache that is much too large; enlarge one that lacks room for a next turn; replace one that was made
        for a crowd. Do nothing of it if there is no memory for the new cache."""
        self._call_off()
        self._crowd_until = -math.inf
        room = max(whole_blocks(self._least_room), min(whole_blocks(self.size), whole_blocks(cells + _SPARE_ROOM)))
        unfit = self.room >= _SHRINK_FACTOR * room or self.room < min(self.size, cells + _SPARE_ROOM // 2)
        if (unfit or not self._has_right_attention) and self._has_memory(self.settings.bytes(room)):
            self._move(room)
        if self._holes(cells):
            self._close_up()
        super().fit(cells)

    def close(self) -> None:
        self._call_off()
        if not self._lost:
            super().close()

    def _open(self, room: int) -> Context | None:
        return self.settings.open(room, self._threads, crowd=self._is_crowded)

    def _run(self, batch: Any) -> int:
        while (status := super()._run(batch)) == NO_ROOM and self.room < self.size:
            if not self._grow(self.room + 1):
                break
        return status

    def _grow(self, cells: int) -> bool:
        """Make room for `cells`. Take the larger cache that is being built, or build one. Try twice the size first; if
        memory does not allow it, build the smallest that fits. Return False if that fails too. (If the caller needs
        more than one batch of extra cells, build what it needs and no more.)"""
        if self.growing:
            self.growing.wait()
            if self._switch():
                return True
        least = min(self.size, whole_blocks(cells))
        if cells - self.room > self.batch:
            return self._move(min(self.size, cells + _SPARE_ROOM), least)
        return self._move(self._enough(cells), least)

    def _switch(self) -> bool:
        """Switch to the context that was built in the background. False if memory was too short after all."""
        successor, self.growing = self.growing, None
        assert successor
        if successor.context:
            with contextlib.suppress(NoMemoryError):
                self._move_to(successor.context, self._context.save_all(successor.buffer))
                return True
            successor.context.close()
        self._quiet_from = self._clock() + _AGAIN  # until then, the cache grows only when a batch does not fit
        return False

    def _suits(self, needed: int) -> bool:
        """Whether this cache has room for so many cells, and the attention that is faster now."""
        return needed <= self.room and self._has_right_attention

    @property
    def _has_right_attention(self) -> bool:
        return self.skips == self.settings.skips(self.room, crowd=self._is_crowded)

    @property
    def _is_crowded(self) -> bool:
        """Whether many requests run at once, or did a moment ago."""
        return self._clock() < self._crowd_until

    def _holes(self, held: int) -> int:
        """How many empty cells attention reads when `held` cells are in use. Attention reads whole blocks."""
        return 0 if self.skips else whole_blocks(self._layout.end) - whole_blocks(held)

    def _is_worth_moving(self, held: int, soon: int) -> bool:
        """Whether moving the cells together takes at most _LONGEST_MOVE, and less time than the empty cells would cost
        the next `soon` tokens."""
        seconds = _MOVE + _MOVE_STRETCH * self._layout.stretches + _MOVE_CELL * held
        return seconds < min(_LONGEST_MOVE, _EMPTY * self._holes(held) * soon)

    def _close_up(self) -> None:
        """Move all cells together, if there is memory to copy them."""
        with contextlib.suppress(NoMemoryError):
            self._load_all(self._context.save_all())

    def _call_off(self) -> None:
        if self.growing:
            self.growing.discard()
            self.growing = None

    def _enough(self, cells: int) -> int:
        """The cache size, found by doubling the present one, that `cells` fit into; at most the configured size."""
        room = self.room
        while room < min(cells, self.size):
            room = min(self.size, 2 * room)
        return room

    def _move(self, *rooms: int) -> bool:
        """Move to a cache of the first of these sizes that fits into memory beside the old one. If none does, free the
        old cache and build one of the last size. Return False, with the cache unchanged, if memory is too short.
        Raises EngineError if the cache is lost."""
        before, least = self.room, rooms[-1]
        if free_bytes(self._load, available_bytes()) + self.settings.bytes(before) < self.settings.bytes(least):
            return False  # the kernel would grant the memory, and kill the process when it is used
        try:
            held = self._context.save_all()
        except NoMemoryError:
            return False
        for room in dict.fromkeys(rooms):
            if self._has_memory(self.settings.bytes(room)) and (larger := self._open(room)):
                self._move_to(larger, held)
                return True
        return self._exchange(least, before, held)

    def _exchange(self, least: int, before: int, held: Any) -> bool:
        """Free the old context and build one of `least` cells; if that fails, one of `before` cells, as the old one
        had, and return False. Raises EngineError if both fail."""
        skipped = self.skips
        self._context.close()
        self._lost = True
        as_before = partial(self.settings.open, before, self._threads, again=True, crowd=skipped)
        for make, is_new in ((partial(self._open, least), True), (as_before, False)):
            if context := make():
                self._context, self._lost = context, False
                self._load_all(held)
                return is_new
        raise EngineError(
            f"there was no memory for a KV cache of {least} tokens, nor for one of {before} again. "
            "Stop other programs, or lower engine.context."
        )

    def _move_to(self, context: Context, held: Any) -> None:
        """Load the saved cells into `context`, then free the old context."""
        old, self._context = self._context, context
        try:
            context.use_threads(self._threads)  # the limit may have changed since the context was built
            self._load_all(held)
        finally:
            old.close()

    def _load_all(self, held: Any) -> None:
        """Load the saved cells, without empty cells between them."""
        self._context.load_all(held)
        self._layout.close_up()

    def _has_memory(self, size: int) -> bool:
        """Whether `size` bytes of memory are available, with _SPARE_BYTES to spare."""
        return free_bytes(self._load, available_bytes()) > size + _SPARE_BYTES


def whole_blocks(cells: int) -> int:
    """`cells`, rounded up to whole blocks: llama.cpp allocates, and attention reads, whole blocks."""
    return -(-cells // _BLOCK) * _BLOCK
