"""Texts whose embeddings are wanted: a piece at a time, between two steps of the engine's loop, so that streams go on.

Used by the engine's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from qwen_edge.core.errors import EngineError
from qwen_edge.engine.backend import Embedder, Vector
from qwen_edge.protocol.messages import Embed, Embedded, Failed


class Piece(NamedTuple):
    """A piece of work that was done: the id of the message that it was for, how many tokens, in how many seconds, and
    the answer, if the message is done."""

    id: int
    tokens: int
    seconds: float
    answer: Embedded | Failed | None = None


class Embeddings:
    """The texts that wait, in order of arrival."""

    def __init__(self, embedder: Embedder, clock: Callable[[], float]) -> None:
        self._embedder, self._clock = embedder, clock
        self._waiting = deque[Embed]()
        self._running: Iterator[tuple[int, Vector | None]] | None = None

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def add(self, message: Embed) -> None:
        self._waiting.append(message)

    def drop(self, id_: int) -> None:
        """Nobody wants the embedding of this message any more. Unknown ids are ignored."""
        if self._waiting and self._waiting[0].id == id_:
            self._running = None
        self._waiting = deque(one for one in self._waiting if one.id != id_)

    def step(self) -> Piece | None:
        """Compute a piece of the first text; None if there is none. A text for which there is no memory is Failed."""
        if not self._waiting:
            return None
        first, began = self._waiting[0], self._clock()
        try:
            if self._running is None:
                self._running = self._embedder.embed(first.tokens)
            count, vector = next(self._running)
        except EngineError as error:
            return self._done(first, 0, began, Failed(first.id, "no_memory", str(error)))
        if vector is None:
            return Piece(first.id, count, self._clock() - began)
        return self._done(first, count, began, Embedded(first.id, vector))

    def tidy(self) -> None:
        """Give back the memory that embeddings need, if none is wanted."""
        if not self._waiting:
            self._embedder.close()

    def _done(self, message: Embed, count: int, began: float, answer: Embedded | Failed) -> Piece:
        self._waiting.popleft()
        self._running = None
        return Piece(message.id, count, self._clock() - began, answer)
