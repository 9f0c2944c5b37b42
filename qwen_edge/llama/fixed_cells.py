"""The cells of a KV cache in one context of llama.cpp, all of them allocated at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen_edge.core.errors import EngineError, UnservableError
from qwen_edge.kv.slice import Slice
from qwen_edge.llama.batch import Batch
from qwen_edge.llama.bindings import C
from qwen_edge.llama.context import Context, ContextSettings, Create
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Load

NO_ROOM = 1  # llama_decode: there are not enough free cells for this batch; nothing has changed


class FixedCells:
    """The cells of one KV cache, shared by many sequences. `decode` runs slices of tokens, one of each sequence. Used
    by the engine's thread."""

    def __init__(self, model: Model, load: Load, room: int | None = None, *, create: Create | None = None) -> None:
        """For as many tokens as a resolved `load` asks for, but no more than the model was trained for; `room` of them
        are allocated now, or all. `create` makes llama.cpp's contexts, where llama.cpp itself is not to be asked.
        Raises EngineError if there is not enough memory."""
        self.settings = ContextSettings.of(model, load, create)
        self.size = min(load.context, model.trained_context)  # cells, when all are allocated
        self.batch = min(load.batch, self.size)
        self._load, self._threads = load, load.threads
        self._batch = Batch(self.batch)
        # llama.cpp takes no batch that is larger than the context, and aborts the process over it
        self._context = self._first(max(min(room or self.size, self.size), self.batch))

    @property
    def context(self) -> Context:
        """The one that holds the cells now; do not keep it."""
        return self._context

    @property
    def room(self) -> int:
        """How many cells there are now."""
        return self._context.cells

    @property
    def skips(self) -> bool:
        """Whether attention passes over the cells of other sequences at no cost."""
        return self._context.skips

    @property
    def sequences(self) -> int:
        return self.settings.sequences

    @property
    def bytes_to_come(self) -> int:
        """What the cells will have grown by when all are allocated."""
        return self.settings.bytes(max(0, self.size - self.room))

    def decode(self, slices: Sequence[Slice]) -> None:
        """Run slices as one batch. Blocks for the length of the computation, on a GPU too, without the interpreter
        lock. Raises EngineError; what the cells then hold is not known."""
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
        """As `Context.share`."""
        self._context.share(source, target, start, end)

    def forget(self, sequence: int, start: int, end: int) -> None:
        """As `Context.forget`."""
        self._context.forget(sequence, start, end)

    def save(self, sequence: int, start: int, end: int) -> Any:
        """As `Context.save`."""
        return self._context.save(sequence, start, end)

    def load(self, cells: Any, sequence: int, start: int, end: int) -> int:
        """As `Context.load`."""
        return self._context.load(cells, sequence, start, end)

    def make_room(self, cells: int) -> bool:
        """See that so many cells are allocated. False if they cannot be; all is as before then."""
        return cells <= self.room

    def expect(self, held: int, going: int, soon: int, later: int) -> None:
        """Nothing is to be made ready: all cells are there."""

    def fit(self, cells: int) -> None:
        """No memory is given back: all cells are there to stay."""

    def use_threads(self, count: int) -> None:
        """From the next batch on, also in another context."""
        self._threads = count
        self._context.use_threads(count)

    def close(self) -> None:
        """Free the cells; nothing is used after."""
        self._context.close()

    def _run(self, batch: Any) -> int:
        return self._context.run(batch)

    def _first(self, room: int) -> Context:
        """Raises EngineError where there is no memory for it, and UnservableError where there will never be one."""
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
        """Why llama.cpp has made no context, which it does not say. What it cannot make on paper either, where it takes
        no memory, it will never make of this model and these settings."""
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
        """Whether llama.cpp makes such a context on paper."""
        with Model(self.settings.model.path, gpu_layers=self._load.gpu_layers, simulate=True) as model:
            context = ContextSettings.of(model, self._load, C.llama_init_from_model).open(room, self._threads)
            if context:
                context.close()
        return context is not None

    @property
    def _name(self) -> str:
        return self.settings.model.path.name

    def _open(self, room: int, *, again: bool = False) -> Context | None:
        return self.settings.open(room, self._threads, again=again)
