"""What the engine asks of a model. llama.cpp answers in `qwen_edge.llama.backend`, a few lines of Python in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from qwen_edge.messages import Sampling, Segment


class Sampler(Protocol):
    """Chooses the tokens of one sequence."""

    def sample(self) -> int:
        """The next token, from the backend's last logits."""

    def close(self) -> None:
        """Free it; it is not used after."""


class Backend(Protocol):
    """One model with one sequence of KV cache. Used by one thread."""

    @property
    def context(self) -> int:
        """Tokens the cache holds."""

    @property
    def batch(self) -> int:
        """The most tokens `decode` takes at once."""

    def tokenize(self, prompt: Sequence[Segment]) -> list[int]:
        """Token ids of a prompt. Raises KeyError if a special segment names no token of this model."""

    def decode(self, tokens: Sequence[int], position: int, *, logits: bool) -> None:
        """Run tokens at `position` and after; with `logits`, a sampler may sample. Raises EngineError."""

    def keep(self, length: int) -> None:
        """Forget all positions from `length` on."""

    def sampler(self, settings: Sampling) -> Sampler:
        """A fresh sampler for one sequence."""

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to the text (none for control tokens)."""

    def is_end(self, token: int) -> bool:
        """Whether this token ends the model's turn."""
