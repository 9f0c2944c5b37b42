"""What the engine needs of a model. `qwen_edge.llama.backend` provides it with llama.cpp, tests with a few lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from qwen_edge.kv.cell_store import Cache
from qwen_edge.kv.model_id import ModelId
from qwen_edge.kv.slice import Slice
from qwen_edge.protocol.messages import Logprob, Sampling, Segment


class Sampler(Protocol):
    """Chooses the tokens of one sequence."""

    def sample(self, row: int) -> int:
        """The next token, chosen from the logits of the token at place `row` of the last batch."""

    def accept(self, token: int) -> None:
        """Note a token that was put into the answer and not sampled, as what was sampled is noted: for penalties, DRY
        and `min_tokens`. The random numbers of a seed are for the tokens that are sampled, in their order."""

    def logprob(self, row: int | None, token: int) -> Logprob:
        """The logprob of the token that was just sampled from there. `row` None: of a token that was put there, which
        is 0, since no other token could have come."""

    def close(self) -> None:
        """Free the sampler, which is not used after that."""


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
        """How many sequence numbers there are, from 0 on."""

    @property
    def spare(self) -> int:
        """Cells that finished requests may keep while other requests run: each may slow down every token."""

    @property
    def model_id(self) -> ModelId:
        """Which model and adapter the cells are computed with."""

    @property
    def fingerprint(self) -> str:
        """Stands for all that decides what a saved cell means. A cell saved under another fingerprint must not be
        loaded."""

    @property
    def cell_bytes(self) -> int:
        """The size of a saved cell, about."""

    @property
    def stash(self) -> int:
        """Of how many cells copies are kept in memory when they leave the cache."""

    @property
    def preempted(self) -> float:
        """How often so far other programs have taken a core away, divided by the number of cores."""

    def unread(self, prompt: tuple[Segment, ...]) -> int:
        """How many characters of a prompt have to be tokenized: those tokenized before cost nothing."""

    def tokenize(
        self, prompt: tuple[Segment, ...], most: float = math.inf, between: Callable[[], None] = lambda: None
    ) -> list[int]:
        """Token ids of a prompt, with the one that every prompt of this model begins with. `between` is called between
        two pieces of a long prompt, and may raise an exception to end the work. Used by any thread. Raises KeyError if
        a special segment names no token of this model, and PromptTooLongError as soon as the prompt is known to have
        more than `most` tokens."""

    def decode(self, slices: list[Slice]) -> None:
        """Compute one batch. Raises EngineError, after which the content of the cache is not known."""

    def expect(self, held: int, going: int, soon: int, later: int) -> None:
        """Make ready for cells that will be needed. `held` cells are in use, and `going` other cells are about to be
        freed; beyond those held, `soon` cells will be needed before long, and `later` cells after a while. Cells may be
        moved together if free cells between them slow down each token. Called between two decodes, whose time it
        shares. Raises EngineError."""

    def fit(self, cells: int) -> None:
        """No request runs, and `cells` cells are in use: give back the memory that they do not need, but for that of a
        few more cells. Raises EngineError."""

    def use_threads(self, share: float) -> None:
        """Compute with this share of the threads, 0 to 1, and at least with one thread."""

    def sampler(self, settings: Sampling) -> Sampler:
        """A new sampler for one sequence. Raises ValueError for settings that this model cannot follow."""

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to the text (none for control tokens)."""

    def is_mark(self, token: int) -> bool:
        """Whether this token shows no word of an answer: it is a special token, or white space."""

    def is_end(self, token: int) -> bool:
        """Whether this token ends the model's turn."""
