"""THE pipeline: a chat request comes in, or not; somebody answers it; what the client wants to see of that goes out.

HTTP and its dialects stand above it. Who answers is an `Answerer`: the model of this machine's engine is the only one
(service/local_engine.py).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import msgspec

from qwen_edge.chat.messages import ChatRequest, Delta, Finish, Reasoning
from qwen_edge.core.errors import RequestError, WaitedTooLongError
from qwen_edge.core.merge_streams import merged
from qwen_edge.service.thermal import ThermalControl


class Answerer(Protocol):
    """Whoever can answer a chat request. Used on the daemon's event loop."""

    @property
    def most_pending(self) -> int:
        """How many answers may be given or waited for at once."""

    def refuse_if_busy(self) -> None:
        """Raises RequestError where another answer cannot be asked for now."""

    def answer(self, request: ChatRequest, *, first: bool = True) -> AsyncGenerator[Delta | Finish, None]:
        """One answer as it comes: its deltas in order, then Finish. With the `first` of several answers to one question
        the conversation is expected to go on. Closing the generator stops the work. Raises RequestError."""


class ChatService:
    """Answers chat requests. Used on the daemon's event loop."""

    def __init__(self, answerer: Answerer, thermal: ThermalControl) -> None:
        self._answerer = answerer
        self._thermal = thermal

    async def choices(self, request: ChatRequest) -> AsyncGenerator[tuple[int, Delta | Finish], None]:
        """As many answers as are asked for, side by side: their pieces as they come, each with its answer's number.
        They share the prompt and differ in the seed. Leaving early stops them all. Raises RequestError."""
        if request.choices > (most := self._answerer.most_pending):
            raise RequestError(
                f"n is {request.choices}, and engine.parallel and server.max_waiting allow {most}.", parameter="n"
            )
        sampling = request.sampling
        seeds = [(sampling.seed + i) % 0xFFFFFFFF for i in range(request.choices)]
        each = [replace(request, sampling=msgspec.structs.replace(sampling, seed=seed)) for seed in seeds]
        async with merged([self.answer(one, first=number == 0) for number, one in enumerate(each)]) as events:
            async for number, event in events:
                yield number, event

    async def answer(self, request: ChatRequest, *, first: bool = True) -> AsyncGenerator[Delta | Finish, None]:
        """Yield one answer as it comes, Finish last. Leaving early stops the generation. Raises RequestError."""
        self._answerer.refuse_if_busy()
        priority = self._thermal.admit(request.priority, request.client)
        try:
            async with aclosing(self._answerer.answer(replace(request, priority=priority), first=first)) as events:
                async for event in events:
                    if request.return_reasoning or not isinstance(event, Reasoning):
                        yield event
        except WaitedTooLongError:
            # a device that has paused meanwhile is not busy, but hot: whoever asks now hears so, and for how long
            self._thermal.admit(request.priority, request.client)
            raise
