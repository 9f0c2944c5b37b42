"""Engine.step: take a request, run a batch, choose a token, tell the daemon. The whole engine in one screen.

One sequence at a time; what it computed stays in the KV cache, and the next request goes on from the longest prefix
it shares. Synchronous and free of I/O: the process around it is `main.py`, and tests and benchmarks drive it directly.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from qwen_edge.engine.backend import Backend
from qwen_edge.engine.output import Output
from qwen_edge.engine.sequence import Sequence
from qwen_edge.errors import EngineError
from qwen_edge.messages import Abort, Failed, Outbound, Submit, Tokens


class Engine:
    """Owns the backend. `step()` does at most one decode, so messages are heard at least that often."""

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.monotonic) -> None:
        self._backend = backend
        self._clock = clock
        self._waiting: deque[Submit] = deque()
        self._running: Sequence | None = None
        self._cached: list[int] = []  # the tokens in the KV cache, by position
        self.broken = False  # a decode has failed: the process should end

    @property
    def busy(self) -> bool:
        return self._running is not None or bool(self._waiting)

    def submit(self, request: Submit) -> None:
        self._waiting.append(request)

    def abort(self, message: Abort) -> None:
        """Forget a request, wherever it is. What it computed stays in the cache for the next one."""
        self._waiting = deque(request for request in self._waiting if request.id != message.id)
        if self._running and self._running.request.id == message.id:
            self._release(self._running)

    def step(self) -> list[Outbound]:
        """Advance by one decode; returns what happened. Raises nothing: a request that cannot go on ends in Failed."""
        if not self.busy:
            return []
        if self._running is None and (failure := self._admit(self._waiting.popleft())):
            return [failure]
        sequence = self._running
        assert sequence
        try:
            self._decode(sequence)
            if sequence.computed < len(sequence.tokens):
                return []
            return self._extend(sequence, sequence.sampler.sample())
        except EngineError as error:
            # what a failed decode left in the cache and in the driver is not known: a new process knows
            self.broken = True
            self._release(sequence)
            return [Failed(sequence.request.id, "engine", str(error)), Failed(None, "engine", str(error))]

    def _admit(self, request: Submit) -> Failed | None:
        """Make the request the running sequence, on top of the prefix it shares with what is cached."""
        try:
            tokens = self._backend.tokenize(request.prompt)
        except KeyError as error:
            return Failed(request.id, "bad_prompt", f"the model has no token {error}")
        if not tokens:
            return Failed(request.id, "bad_prompt", "the prompt is empty")
        if len(tokens) >= self._backend.context:
            return Failed(request.id, "context_too_long", "", tokens=len(tokens))
        # at least one token is computed anew: the logits to sample from are not kept
        cached = min(_common_prefix(self._cached, tokens), len(tokens) - 1)
        self._forget(cached)
        self._running = Sequence(
            request=request,
            tokens=tokens,
            cached=cached,
            sampler=self._backend.sampler(request.sampling),
            output=Output(request.stop, request.reasoning, reasons=request.reasons),
            started=self._clock(),
        )
        return None

    def _decode(self, sequence: Sequence) -> None:
        """Run the next slice; logits are wanted once it reaches the last token."""
        tokens = sequence.next_slice(self._backend.batch)
        last = sequence.computed + len(tokens) == len(sequence.tokens)
        self._backend.decode(tokens, sequence.computed, logits=last)
        sequence.computed += len(tokens)
        self._cached += tokens

    def _extend(self, sequence: Sequence, token: int) -> list[Outbound]:
        """Take a sampled token into the sequence, or end it there."""
        if sequence.first_token_at is None:
            sequence.first_token_at = self._clock()
        sequence.tokens.append(token)
        if self._backend.is_end(token):
            return self._finish(sequence, "stop", sequence.output.finish())
        text = sequence.output.push(self._backend.piece(token))
        if sequence.output.stopped:
            return self._finish(sequence, "stop", text)
        if sequence.exhausted(self._backend.context, self._clock()):
            return self._finish(sequence, "length", text + sequence.output.finish())
        return [Tokens(sequence.request.id, text)] if text else []

    def _finish(self, sequence: Sequence, reason: Literal["stop", "length"], text: str) -> list[Outbound]:
        self._release(sequence)
        done = sequence.done(reason, self._clock())
        return [Tokens(sequence.request.id, text), done] if text else [done]

    def _release(self, sequence: Sequence) -> None:
        sequence.sampler.close()
        self._running = None

    def _forget(self, length: int) -> None:
        if length < len(self._cached):
            self._backend.keep(length)
            del self._cached[length:]


def _common_prefix(one: list[int], other: list[int]) -> int:
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
