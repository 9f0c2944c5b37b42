"""The cells of a KV cache in one llama.cpp context, all of them allocated at once: a `CellStore`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen_edge.core.errors import EngineError, UnservableError
from qwen_edge.device.host.memory import give_back
from qwen_edge.kv.memory_kind import MemoryKind
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.batch import Batch
from qwen_edge.llama.bindings import C
from qwen_edge.llama.context import Context, ContextSettings, Create, NoMemoryError
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import host_tier_cells
from qwen_edge.protocol.messages import Load

# without flash attention every token reads all cells, also those of other sequences: 1,000 cells cost 11 ms
_SPARE_CELLS = 0
NO_ROOM = 1  # llama_decode: there are not enough free cells for this batch; nothing has changed


class FixedCells:
    """Implements kv.cell_store.CellStore, whose docstrings hold here. Beside it, `decode` runs slices of tokens, one
    slice per sequence. Used by the engine's thread."""

    def __init__(self, model: Model, load: Load, room: int | None = None, *, create: Create | None = None) -> None:
        """The size is the context length of a resolved `load`, and at most the model's trained context. `room` cells
        are allocated now; all of them if `room` is None. `create` replaces llama.cpp's own function that creates a
        context. Raises EngineError if there is not enough memory."""
        self.settings = ContextSettings.of(model, load, create)
        self.size = min(load.context, model.trained_context)  # cells, when all are allocated
        self.batch = min(load.batch, self.size)
        self._load, self._threads = load, load.threads
        self._batch = Batch(self.batch)
        # llama.cpp aborts the process if the batch is larger than the context
        self._context = self._first(max(min(room or self.size, self.size), self.batch))

    @property
    def context(self) -> Context:
        """The context that holds the cells now. Do not keep a reference: growing replaces it."""
        return self._context

    @property
    def room(self) -> int:
        """How many cells are allocated now."""
        return self._context.cells

    @property
    def skips(self) -> bool:
        """Whether attention skips the cells of other sequences at no cost."""
        return self._context.skips

    @property
    def memory(self) -> MemoryKind:
        return self.settings.model.memory

    @property
    def sequences(self) -> int:
        return self.settings.sequences

    @property
    def spare(self) -> int:
        has_price = self._load.flash_attention in ("off", "small")
        # without a host tier, finished requests are kept in cells only
        return _SPARE_CELLS if has_price and self.host_tier_cells else self.size

    @property
    def host_tier_cells(self) -> int:
        return host_tier_cells(self.settings.model, self._load)

    @property
    def cell_bytes(self) -> int:
        return self.settings.bytes(1)

    @property
    def bytes_to_come(self) -> int:
        """Bytes by which the cache can still grow."""
        return self.settings.bytes(max(0, self.size - self.room))

    def decode(self, slices: Sequence[Slice]) -> None:
        """Run the slices as one batch. Blocks until the computation is done, on a GPU too, with the interpreter lock
        released. Raises EngineError; the contents of the cells are then undefined."""
        status = self._run(self._batch.fill(slices))
        if status == 0:
            return
        full = "the context is full" if self.room >= self.size else "there is no memory for a larger KV cache"
        why = full if status == NO_ROOM else f"llama_decode returned {status}"
        at = ", ".join(f"{len(one.tokens)} at position {one.position} of {one.sequence}" for one in slices)
        raise EngineError(f"{why}; tokens of sequences: {at}")

    def logits(self, row: int) -> Any:
        """As `Context.logits`."""
        return self._context.logits(row)

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """`end` -1: all from `start` on."""
        self._context.share(source, target, start, end)

    def forget(self, sequence: int, start: int, end: int) -> None:
        """`end` -1: all from `start` on."""
        self._context.forget(sequence, start, end)

    def save(self, sequence: int, start: int, end: int) -> Any:
        try:
            return self._context.save(sequence, start, end)
        except NoMemoryError:  # without the copy, evicted tokens are computed again: no request fails over it
            return None

    def load(self, saved: Any, sequence: int, start: int, end: int) -> None:
        self._context.load(saved, sequence, start, end)

    def make_room(self, cells: int) -> bool:
        return cells <= self.room

    def expect(self, staying: int, leaving: int, soon: int, later: int, streams: int) -> None:
        """Does nothing: all cells are allocated."""

    def fit(self, cells: int) -> None:
        """The cells keep their size. What the allocator holds beside them goes back to the system."""
        give_back()

    def use_threads(self, count: int) -> None:
        """Use `count` threads from the next batch on, also in any later context."""
        self._threads = count
        self._context.use_threads(count)

    def close(self) -> None:
        """Free the cells. Call nothing afterwards."""
        self._context.close()

    def _run(self, batch: Any) -> int:
        return self._context.run(batch)

    def _first(self, room: int) -> Context:
        """The first context. Raises EngineError if memory is short, UnservableError if llama.cpp can never create a
        context, or a KV cache, for this model."""
        context = self._open(room)
        if context is None:
            raise self._why_none(room)
        if not context.has_memory:
            context.close()
            raise UnservableError(
                f"qwen-edge cannot serve this model: llama.cpp makes no KV cache for {self._name}, as for models that "
                "read texts and write none. Choose a text model with plain attention, such as Qwen3."
            )
        return context

    def _why_none(self, room: int) -> EngineError:
        """Why llama.cpp has created no context; it gives no reason itself. If a simulated context, which needs no
        memory, fails too, then no context is possible with this model and these settings."""
        what = f"llama.cpp could not make a context of {room} tokens (KV cache {self._load.kv_type})"
        if self.settings.model.simulated or not self._is_possible(room):
            return UnservableError(
                f"{what} for {self._name}, however much memory there is. Leave engine.kv_type, engine.flash_attention "
                "and engine.batch to their defaults, or choose another model."
            )
        return EngineError(
            f"{what}: there is not enough memory. Lower engine.context or engine.batch, or choose a smaller "
            "engine.kv_type."
        )

    def _is_possible(self, room: int) -> bool:
        """Whether llama.cpp can create a simulated context of `room` cells, which takes no memory."""
        with Model(self.settings.model.path, gpu_layers=self._load.gpu_layers, simulate=True) as model:
            context = ContextSettings.of(model, self._load, C.llama_init_from_model).open(room, self._threads)
            if context:
                context.close()
        return context is not None

    @property
    def _name(self) -> str:
        return self.settings.model.path.name

    def _open(self, room: int) -> Context | None:
        return self.settings.open(room, self._threads)
