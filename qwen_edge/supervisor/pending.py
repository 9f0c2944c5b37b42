"""A request, or a look at what is remembered, between the client that waits for it and the engine that answers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal

from qwen_edge.core.errors import (
    RequestError,
    WaitedTooLongError,
    context_too_long,
    engine_failed,
    stopping,
    unavailable,
)
from qwen_edge.protocol.messages import CacheReport, Done, Failed, InspectCache, Submit, Tokens

Answer = Tokens | Done | CacheReport
_LOOK_SECONDS = 100.0  # a little less than `qwen-edge cache` and people wait


class PendingRequest:
    """One request or look. While its client waits, engines may die or leave.

    `sent` tells whether the engine that lives now has it, `began` whether that engine has begun it, `again` whether
    another engine has died before. Used on the daemon's event loop."""

    def __init__(self, request: Submit | InspectCache) -> None:
        self.request = request
        self.sent = self.began = self.again = self.over = False
        self._late = False  # it has waited for an engine as long as it may
        self._events: asyncio.Queue[Answer | Failed] = asyncio.Queue()

    def hear(self, event: Answer | Failed) -> None:
        """An engine has said this of it."""
        self._events.put_nowait(event)

    def fail(self, code: Literal["engine", "stopping", "waited"], detail: str = "") -> None:
        """There will be no answer."""
        self.hear(Failed(self.request.id, code, detail))

    def left_alone(self) -> None:
        """The engine that may have had it is gone, and the next one is to get it."""
        self.sent, self.again = False, self.again or self.sent
        if self._late:
            self.fail("waited")

    async def events(self, context: int) -> AsyncGenerator[Answer, None]:
        """What is heard of it; Done or CacheReport is the last. Raises RequestError; `context` tokens are what a prompt
        had to fit into.

        A request waits for an engine no longer than its wait_seconds; once an engine has it, the engine keeps to the
        request's limits. A look has `_LOOK_SECONDS` in all."""
        patience = self.request.wait_seconds if isinstance(self.request, Submit) else _LOOK_SECONDS
        timer = asyncio.get_running_loop().call_later(patience, self._run_out)
        try:
            while not self.over:
                event = await self._events.get()
                self.over = isinstance(event, Done | CacheReport | Failed)
                if isinstance(event, Failed):
                    raise self._explain(event, context)
                yield event
        finally:
            timer.cancel()

    def _run_out(self) -> None:
        self._late = True
        if not self.sent or isinstance(self.request, InspectCache):
            self.fail("waited")

    def _explain(self, failure: Failed, context: int) -> RequestError:
        if failure.code == "context_too_long":
            return context_too_long(failure.tokens, context, at_least=failure.detail == "at least")
        if failure.code == "no_memory":
            return unavailable(f"There is no memory for this request now: {failure.detail}.", retry_after=10)
        if failure.code == "waited" and isinstance(self.request, InspectCache):
            return unavailable(f"The engine has not answered within {_LOOK_SECONDS:.0f} s. Try again.", retry_after=10)
        if failure.code == "waited":
            return WaitedTooLongError()
        if failure.code == "bad_request":
            return RequestError(f"The request cannot be used: {failure.detail}.")
        return stopping() if failure.code == "stopping" else engine_failed(failure.detail)
