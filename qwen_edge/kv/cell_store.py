"""The contract of the cells of a KV cache: what may be done with them, and what must be known about them.

`llama/fixed_cells.py` and `llama/growing_cells.py` implement it with llama.cpp, tests with a dictionary. The cells are
counted and handed out by the KV cache manager (`manager`); here a sequence is a number, and its cells have positions.
"""

from __future__ import annotations

from typing import Any, Protocol

from qwen_edge.kv.memory_kind import MemoryKind

PIECE = 256  # cells that are copied, written or loaded at once: what takes no longer than may pass between two steps
FEW = 16  # tokens that are as quickly computed as loaded


class CellStore(Protocol):
    """The cells of one KV cache. A cell holds what the model has computed of one token, and belongs to every sequence
    that shares it. Used by one thread, between two batches. Any method that moves cells raises EngineError if llama.cpp
    fails; what the cells contain is then not known."""

    @property
    def memory(self) -> MemoryKind:
        """What may be asked of the cells: `share`, `forget`, `save` and `load` of parts only as far as this says. All
        cells of a sequence can always be forgotten."""

    @property
    def size(self) -> int:
        """How many cells there may be: the most tokens that all sequences together can hold. Never changes."""

    @property
    def room(self) -> int:
        """How many cells are allocated now. A store may begin with few cells and allocate more when they are needed."""

    @property
    def sequences(self) -> int:
        """How many sequences there are; their numbers begin at 0."""

    @property
    def spare(self) -> int:
        """How many cells finished requests may keep while other requests run. 0 where each such cell slows down every
        token and copies are kept instead, `size` where attention skips the cells of other sequences at no cost."""

    @property
    def host_tier_cells(self) -> int:
        """How many cells may have copies in ordinary memory after they have left the KV cache."""

    @property
    def cell_bytes(self) -> int:
        """About how many bytes one saved cell has."""

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """Let the target sequence hold the source's cells from position `start` to before `end`, too. The target must
        not hold other cells at these positions. Copies nothing."""

    def forget(self, sequence: int, start: int, end: int) -> None:
        """Take the cells from position `start` to before `end` from the sequence. A cell that no other sequence holds
        is free then."""

    def save(self, sequence: int, start: int, end: int) -> Any:
        """A copy of the sequence's cells from position `start` to before `end`, as bytes; None if there is no memory
        for the copy."""

    def load(self, saved: Any, sequence: int, start: int, end: int) -> None:
        """Give the sequence new cells from position `start` to before `end`, with the contents that `save` has
        returned. The saved bytes may begin before `start` and end behind `end`, and may be changed by the call. There
        must be free cells for all that was saved."""

    def make_room(self, cells: int) -> bool:
        """Allocate memory now, until `cells` cells can be in use, those that are in use included. False if there is no
        memory: nothing has changed then. Raises EngineError if the cells are lost."""

    def expect(self, staying: int, leaving: int, soon: int, later: int, streams: int) -> None:
        """Prepare for cells that will be needed; called between two batches, and takes no longer than one. `staying`
        and `leaving` are the cells in use: those of `leaving` are about to be freed. Beyond the staying cells, `soon`
        cells will be needed within seconds and `later` cells (no fewer) after a while, for `streams` requests that
        run at once. Cells in use may be moved together where free cells between them slow down each token. Raises
        EngineError if the cells are lost."""

    def fit(self, cells: int) -> None:
        """Give back memory that is not needed; called while no request runs, with `cells` cells in use. Room for a
        short turn stays. Raises EngineError if the cells are lost."""
