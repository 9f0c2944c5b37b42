"""The cells of a KV cache that grows: holds one of llama.cpp's contexts, and replaces it by a larger or a smaller one.

The cache begins small and grows, up to what was configured: most conversations never need all of it, and llama.cpp
writes to every byte it allocates.

Without flash attention, the values of one channel lie as far apart as the cache is long, and llama.cpp reads as many of
them as have been held, rounded up to a whole block. While that is all there is room for, they are read in one go: a
token then takes a tenth less than in a cache of twice the length (7 % at 300 tokens, 11 % at 2,048 and at 6,144, on an
EPYC of Zen 4). So there the cache grows block by block; with flash attention, on a GPU, and where no larger one could
be made in time, by doubling.

Where flash attention is quicker only while there are few tokens, a context of that size has it, and larger ones have
not.
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
_ROOMY = 1.1  # times what is needed: a cache that is larger is made smaller when nobody asks; less is not worth it
_SPARE_ROOM = 128  # cells more than are held, or half as many at least: a turn's own words need not wait for more
_NEAR = 32  # cells that are left when a larger cache is moved to: no step of a stream needs more, or few do
_SPARE_BYTES = 256 << 20  # of the system's memory, which is left alone where there is a choice
# seconds: what an empty cell between others costs every token, of a stream even three times as much; and what moving
# the others together costs at least, for each stretch they lie in, and for each of them
_EMPTY, _MOVE, _MOVE_STRETCH, _MOVE_CELL = 3e-6, 0.02, 0.002, 5e-5
_LONGEST_MOVE = 0.25  # seconds, of half a second that a stream may stand still
_AGAIN = 30.0  # seconds after which a larger cache is tried beside the work again, where there was no memory for one


class GrowingCells(FixedCells):
    """Allocated as they are needed. Cells that `expect` finds scattered are moved together."""

    def __init__(
        self,
        model: Model,
        load: Load,
        room: int | None = None,
        *,
        create: Create | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """As FixedCells; without `room` there is space for a short conversation at first, or the one that is
        awaited."""
        awaited = load.awaited + _SPARE_ROOM if load.awaited else 0
        super().__init__(model, load, max(room or FIRST_ROOM, awaited), create=create)
        self._clock = clock
        self._layout = Layout(self.sequences + 1, whole_blocks(self.size))
        # seconds: when a larger cache may be made beside the work. One thread gets in the other's way on a GPU
        self._quiet_from = math.inf if on_gpu(load) else 0.0
        self.growing: BackgroundGrowth | None = None  # a larger context that is being made
        self._lost = False  # there is no context, as no memory was left for one
        self._least_room = max(min(FIRST_ROOM, self.size), self.batch)

    def decode(self, slices: Sequence[Slice]) -> None:
        """As `FixedCells.decode`; where the cache must grow first (`make_room` was not asked), it blocks for the time
        that copying it takes as well."""
        super().decode(slices)
        for one in slices:
            self._layout.fill(one.sequence, one.position, one.position + len(one.tokens))

    def share(self, source: int, target: int, start: int, end: int) -> None:
        super().share(source, target, start, end)
        self._layout.share(source, target, start, end)

    def forget(self, sequence: int, start: int, end: int) -> None:
        super().forget(sequence, start, end)
        self._layout.drop(sequence, start, end)

    def load(self, cells: Any, sequence: int, start: int, end: int) -> int:
        count, scratch = super().load(cells, sequence, start, end), self.settings.scratch
        self._layout.fill(scratch, start, start + count)
        self._layout.share(scratch, sequence, start, end)
        self._layout.drop(scratch, 0, start + count)
        return count

    def expect(self, held: int, going: int, soon: int, later: int) -> None:
        """So many cells are held, and so many others are about to go; so many more than those held will be soon, and
        after a while. Where they are more than there is room for, a larger cache is made beside the work, if memory
        allows, and moved to when it is there and nothing is about to go; but, where no more is to come than will be
        soon, as of a single answer, not before the old one is full: until then a token takes less in it.

        Where cells that are not held lie between those that are, and it saves time, these are moved together: attention
        that does not skip reads all cells up to the last one held. Raises EngineError."""
        needed = min(held + soon, self.size)
        if self.growing and self.growing.ready:
            if needed <= self.room:
                self._call_off()
            elif (later > soon and not going) or held + going + _NEAR > self.room:
                self._succeed()
        if not going and self._is_worth_moving(held, soon):
            self._close_up()
        if self.growing or needed <= self.room or self._clock() < self._quiet_from:
            return
        room = min(self.size, whole_blocks(held + later))
        if self.settings.skips(room):
            room = self._enough(needed)
        copied, most = (self.settings.bytes(cells) + self._context.most_bytes_beside for cells in (held, self.room))
        if self._is_there(self.settings.bytes(room) + most):
            try:
                self.growing = BackgroundGrowth(partial(self._open, room), self._is_there, room, copied, most)
            except (MemoryError, RuntimeError):  # not even for a thread
                self._quiet_from = self._clock() + _AGAIN

    def make_room(self, cells: int) -> bool:
        """Grow now if so many cells do not fit. False if there is no memory for them: the cache is then as it was.
        Raises EngineError if it is lost."""
        if self.growing and self.growing.room < cells:
            self._call_off()
        while self.room < min(cells, self.size):
            if not self._grow(min(cells, self.size)):
                return False
        return True

    def fit(self, cells: int) -> None:
        """Nobody asks, and so many cells are all that are held: give memory back where they leave much of the cache
        empty, and make room for a next turn where there is little; but only if there is memory to do it in. Raises
        EngineError if the cache is lost."""
        self._call_off()
        room = max(whole_blocks(self._least_room), min(whole_blocks(self.size), whole_blocks(cells + _SPARE_ROOM)))
        unfit = self.room >= _ROOMY * room or self.room < min(self.size, cells + _SPARE_ROOM // 2)
        if unfit and self._is_there(self.settings.bytes(room)):
            self._move(room)
        if self._holes(cells):
            self._close_up()

    def close(self) -> None:
        self._call_off()
        if not self._lost:
            super().close()

    def _run(self, batch: Any) -> int:
        while (status := super()._run(batch)) == NO_ROOM and self.room < self.size:
            if not self._grow(self.room + 1):
                break
        return status

    def _grow(self, cells: int) -> bool:
        """There is no room for so many cells: take the larger cache that is being made, or make one; of twice the size
        where a batch needs it, after which more will come, if there is memory for it. False if there is not."""
        if self.growing:
            self.growing.wait()
            if self._succeed():
                return True
        least = min(self.size, whole_blocks(cells))
        if cells - self.room > self.batch:
            return self._move(min(self.size, cells + _SPARE_ROOM), least)
        return self._move(self._enough(cells), least)

    def _succeed(self) -> bool:
        """Move to the context that has been made beside the work. False if there was no memory after all."""
        successor, self.growing = self.growing, None
        assert successor
        if successor.context:
            with contextlib.suppress(NoMemoryError):
                self._move_to(successor.context, self._context.save_all(successor.buffer))
                return True
            successor.context.close()
        self._quiet_from = self._clock() + _AGAIN  # until then, what is needed is tried when it is
        return False

    def _holes(self, held: int) -> int:
        """How many empty cells attention reads, where so many are held; it reads whole blocks."""
        return 0 if self.skips else whole_blocks(self._layout.end) - whole_blocks(held)

    def _is_worth_moving(self, held: int, soon: int) -> bool:
        """Whether it takes less time, and not too much, than the holes cost the tokens that come soon."""
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
        """The next size of the cache, by doubling, that so many cells fit into, if any does."""
        room = self.room
        while room < min(cells, self.size):
            room = min(self.size, 2 * room)
        return room

    def _move(self, *rooms: int) -> bool:
        """To a cache of the first of these sizes for which there is memory beside the old one, or else of the last one
        in place of it. False if there is no memory: the cache is then as it was. Raises EngineError if it is lost."""
        before, least = self.room, rooms[-1]
        if free_bytes(self._load, available_bytes()) + self.settings.bytes(before) < self.settings.bytes(least):
            return False  # the kernel would promise it, and end the process when it is used
        try:
            held = self._context.save_all()
        except NoMemoryError:
            return False
        for room in dict.fromkeys(rooms):
            if self._is_there(self.settings.bytes(room)) and (larger := self._open(room)):
                self._move_to(larger, held)
                return True
        return self._exchange(least, before, held)

    def _exchange(self, least: int, before: int, held: Any) -> bool:
        """Free the old context, and make the new one in its place, or again the old one. Raises EngineError if neither
        is to be had."""
        self._context.close()
        self._lost = True
        for room in (least, before):
            if context := self._open(room, again=room == before):
                self._context, self._lost = context, False
                self._load_all(held)
                return room == least
        raise EngineError(f"there was no memory for a KV cache of {least} tokens, nor again for one of {before}")

    def _move_to(self, context: Context, held: Any) -> None:
        """Hold in another context what was saved of this one, which is there until then."""
        old, self._context = self._context, context
        try:
            context.use_threads(self._threads)  # it may have been made while others were allowed
            self._load_all(held)
        finally:
            old.close()

    def _load_all(self, held: Any) -> None:
        """Hold what was saved, all of it side by side."""
        self._context.load_all(held)
        self._layout.close_up()

    def _is_there(self, size: int) -> bool:
        """Whether so many bytes can be had, and some are left."""
        return free_bytes(self._load, available_bytes()) > size + _SPARE_BYTES


def whole_blocks(cells: int) -> int:
    """The least that llama.cpp has, and attention reads, of which these are a part."""
    return -(-cells // _BLOCK) * _BLOCK
