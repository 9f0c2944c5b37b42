"""What the engine asks of a model. llama.cpp answers in `qwen_edge.llama.backend`, a few lines of Python in tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from qwen_edge.kv.cell_store import Cache
from qwen_edge.kv.model_id import ModelId
from qwen_edge.kv.slice import Slice
from qwen_edge.protocol.messages import Logprob, Sampling, Segment


class Sampler(Protocol):
    """Chooses the tokens of one sequence."""

    def sample(self, row: int) -> int:
        """The next token, from the logits of the token that stood at place `row` of the last batch."""

    def logprob(self, row: int, token: int) -> Logprob:
        """How likely the token just sampled from there was."""

    def close(self) -> None:
        """Free it; it is not used after."""


class Backend(Cache, Protocol):
    """One model with one KV cache, whose cells many sequences share. Used by one thread."""

    @property
    def context(self) -> int:
        """Cells in the cache: the most tokens that all sequences together may hold."""

    @property
    def batch(self) -> int:
        """The most tokens `decode` takes at once."""

    @property
    def parallel(self) -> int:
        """How many requests may run at once."""

    @property
    def rows(self) -> int:
        """The most tokens whose logits one `decode` gives; no less than `parallel`."""

    @property
    def sequences(self) -> int:
        """Sequences are numbered from 0 to before this."""

    @property
    def spare(self) -> int:
        """Cells that finished requests may keep while others run: there may be a price for every one."""

    @property
    def model_id(self) -> ModelId:
        """Which model and adapter the cells are computed with."""

    @property
    def fingerprint(self) -> str:
        """Of all that decides what a saved cell means. What was saved under another one must not be loaded."""

    @property
    def cell_bytes(self) -> int:
        """Of a saved cell, about."""

    @property
    def stash(self) -> int:
        """Cells of which copies are kept when they have to go."""

    @property
    def preempted(self) -> float:
        """How often so far others have taken a core away, for each core there is."""

    def unread(self, prompt: Sequence[Segment]) -> int:
        """How many characters of a prompt have to be turned into tokens: what is known from before costs nothing."""

    def tokenize(
        self, prompt: Sequence[Segment], most: float = math.inf, between: Callable[[], None] = lambda: None
    ) -> list[int]:
        """Token ids of a prompt, with the one that every prompt of this model begins with. `between` is called between
        two pieces of a long prompt, and may raise an exception to end the work. Any thread may ask. Raises KeyError if
        a special segment names no token of this model, and PromptTooLongError once it is certain that there are more
        than `most`."""

    def decode(self, slices: Sequence[Slice]) -> None:
        """Run one batch. Raises EngineError; what the cache then holds is not known."""

    def expect(self, held: int, going: int, soon: int, later: int) -> None:
        """So many cells are held, and so many others are about to go; so many more than those held will be before
        long, and after a while, if there are as many: make ready for them. Cells may be moved together if what lies
        between them has a price. Called between two decodes, whose time it shares. Raises EngineError."""

    def fit(self, cells: int) -> None:
        """Nobody asks, and so many cells are all that are held: give memory back if they need less than there is, and
        make room for a few more. Raises EngineError."""

    def use_threads(self, share: float) -> None:
        """Compute with so much of the threads there are, 0 to 1, and at least with one."""

    def sampler(self, settings: Sampling) -> Sampler:
        """A fresh sampler for one sequence. Raises ValueError for settings that this model cannot follow."""

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to the text (none for control tokens)."""

    def is_mark(self, token: int) -> bool:
        """Whether this token has no text of an answer to show: it is a special one, or white space."""

    def is_end(self, token: int) -> bool:
        """Whether this token ends the model's turn."""
