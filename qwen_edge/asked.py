"""A request on its way between a client that waits and an engine that may die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal

from qwen_edge.errors import RequestError, WaitedTooLongError, context_too_long, engine_failed, stopping, unavailable
from qwen_edge.messages import Done, Failed, Submit, Tokens

Event = Tokens | Done | Failed


class Asked:
    """`sent` tells whether the engine that lives now has the request, `began` whether it has begun it, `again` whether
    another has died before. Used on the daemon's event loop."""

    def __init__(self, request: Submit) -> None:
        self.request = request
        self.sent = self.began = self.again = self.over = False
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def hear(self, event: Event) -> None:
        self._events.put_nowait(event)

    def fail(self, code: Literal["engine", "stopping"], detail: str) -> None:
        self.hear(Failed(self.request.id, code, detail))

    async def events(self, context: int) -> AsyncGenerator[Tokens | Done, None]:
        """What is heard of it, Done last. Raises RequestError; `context` tokens are what a prompt had to fit into."""
        while not self.over:
            event = await self._next()
            self.over = isinstance(event, Done | Failed)
            if isinstance(event, Failed):
                raise _explain(event, context)
            yield event

    async def _next(self) -> Event:
        """A request waits for an engine no longer than the engine would let it wait."""
        while not self.sent:
            try:
                return await asyncio.wait_for(self._events.get(), self.request.wait_seconds)
            except asyncio.TimeoutError:
                if not self.sent:
                    return Failed(self.request.id, "waited", "")
        return await self._events.get()


def _explain(failure: Failed, context: int) -> RequestError:
    if failure.code == "context_too_long":
        return context_too_long(failure.tokens, context, at_least=failure.detail == "at least")
    if failure.code == "no_memory":
        return unavailable(f"There is no memory for this request now: {failure.detail}.", retry_after=10)
    if failure.code == "waited":
        return WaitedTooLongError()
    if failure.code == "bad_request":
        return RequestError(f"The request cannot be used: {failure.detail}.")
    return stopping() if failure.code == "stopping" else engine_failed(failure.detail)
