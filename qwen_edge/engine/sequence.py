"""One request on its way through the engine: its tokens, how far it is, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from qwen_edge.engine.backend import Sampler
from qwen_edge.engine.output import Output
from qwen_edge.messages import Done, Submit


@dataclass
class Sequence:
    """`tokens` are the prompt and what was generated; the first `computed` of them are in the KV cache.

    Times are seconds of the engine's clock. Owned by the engine's thread."""

    request: Submit
    tokens: list[int]
    cached: int
    sampler: Sampler
    output: Output
    started: float
    first_token_at: float | None = None
    computed: int = field(init=False)
    prompt_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.computed = self.cached
        self.prompt_length = len(self.tokens)

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    def next_slice(self, batch: int) -> list[int]:
        """The tokens to decode next: at most `batch` of those not computed yet. Never empty while it runs."""
        return self.tokens[self.computed : self.computed + batch]

    def exhausted(self, context: int, now: float) -> bool:
        """Whether the answer is as long as it may be, in tokens or seconds, or the context is full."""
        too_long = self.generated >= self.request.max_tokens or now - self.started >= self.request.max_seconds
        return too_long or len(self.tokens) >= context

    def done(self, reason: Literal["stop", "length"], now: float) -> Done:
        first = self.first_token_at if self.first_token_at is not None else now
        return Done(
            id=self.request.id,
            reason=reason,
            prompt_tokens=self.prompt_length,
            cached_tokens=self.cached,
            completion_tokens=self.generated,
            prefill_seconds=first - self.started,
            decode_seconds=now - first,
        )
