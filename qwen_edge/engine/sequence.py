"""One request on its way through the engine: its tokens, how far it is, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from qwen_edge.engine.backend import Sampler
from qwen_edge.engine.misses import Miss, Prompt, first_message, prompt_of
from qwen_edge.engine.output import Output
from qwen_edge.engine.speculate import Lookup
from qwen_edge.kv.radix import common_prefix
from qwen_edge.protocol.messages import PRIORITIES, Done, Logprob, Submit, Tokens


@dataclass(eq=False)
class Sequence:
    """`tokens` are the prompt and what was generated. While it has a `seq_id`, a sequence number of the KV cache, the
    first `computed` of them stand there. `ran` counts the tokens of the prompt that it had to compute itself; `missed`
    is why, if they might have been there.

    Times are seconds of the engine's clock. Owned by the engine's thread."""

    request: Submit
    tokens: list[int]
    sampler: Sampler
    output: Output
    lookup: Lookup
    arrived: float
    seq_id: int | None = None
    computed: int = 0
    ran: int = 0
    unsaid: list[Logprob] = field(default_factory=list)  # not sent yet
    started: float | None = None
    rested: float = 0.0  # seconds that the engine had rested in all when it was started
    first_token_at: float | None = None
    spoke: bool = False  # there was a word of text, not only marks
    missed: Miss | None = None
    prompt: Prompt = field(init=False)
    rank: int = field(init=False)
    prompt_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.rank = PRIORITIES.index(self.request.priority)
        self.prompt_length = len(self.tokens)
        head = first_message(self.request.prompt, self.tokens)
        self.prompt = prompt_of(self.tokens, self.request.conversation, head, self.scope)

    @property
    def scope(self) -> str | None:
        """Whose prompts spare it computing; None: those of all."""
        return self.request.caller.scope

    def in_common(self, other: Sequence) -> int:
        """With how many tokens both begin, if what is computed of one is used for the other."""
        return common_prefix(self.tokens, other.tokens) if self.scope == other.scope else 0

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next one can be sampled. Never none between two steps."""
        return len(self.tokens) - self.computed

    def to_come(self, tokens: int) -> int:
        """So many tokens of its answer are to come, or what is left of it."""
        return max(0, min(tokens, self.request.max_tokens - self.generated))

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    def exhausted(self, context: int, now: float, rested: float) -> bool:
        """Whether the answer is as long as it may be, in tokens or seconds, or the context is full."""
        return self.generated >= self.request.max_tokens or self.late(now, rested) or len(self.tokens) >= context

    def late(self, now: float, rested: float) -> bool:
        """Whether it has taken as long as it may; the engine has rested so long since its beginning."""
        if self.started is None:
            return False
        took, rests = now - self.started, rested - self.rested
        return took >= self.request.max_seconds or took - rests >= self.request.work_seconds

    def waited_too_long(self, now: float) -> bool:
        return self.started is None and now - self.arrived >= self.request.wait_seconds

    def choose(
        self, row: int, guesses: tuple[int, ...], is_end: Callable[[int], bool]
    ) -> tuple[list[int], list[Logprob]]:
        """The next token, from the logits at place `row` of the last batch, and those after it as long as it is what
        was guessed; and how likely they were, if that was asked for."""
        chosen, logprobs = list[int](), list[Logprob]()
        while True:
            token = self.sampler.sample(row + len(chosen))
            if self.request.sampling.logprobs is not None:
                logprobs.append(self.sampler.logprob(row + len(chosen), token))
            chosen.append(token)
            if is_end(token) or guesses[len(chosen) - 1 : len(chosen)] != (token,):
                return chosen, logprobs

    def say(self, text: str) -> list[Tokens]:
        """The message with this text and the logprobs that wait, if there are any."""
        logprobs, self.unsaid = tuple(self.unsaid), []
        return [Tokens(self.request.id, text, logprobs)] if text or logprobs else []

    def done(self, reason: Literal["stop", "length"], now: float) -> Done:
        first = self.first_token_at if self.first_token_at is not None else now
        started = self.started if self.started is not None else now
        return Done(
            id=self.request.id,
            reason=reason,
            prompt_tokens=self.prompt_length,
            cached_tokens=max(0, min(self.computed, self.prompt_length) - self.ran),
            completion_tokens=self.generated,
            prefill_seconds=first - started,
            decode_seconds=now - first,
            missed=self.missed.reason if self.missed else "",
            missed_at=self.missed.position if self.missed else 0,
        )
