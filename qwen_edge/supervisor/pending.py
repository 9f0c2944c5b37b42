"""Requests, and inspections of the cache, between the clients that wait for them and the engine that answers them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator
from typing import Literal

import msgspec

from qwen_edge.core.errors import (
    RequestError,
    WaitedTooLongError,
    context_too_long,
    engine_failed,
    stopping,
    unavailable,
)
from qwen_edge.protocol.messages import CacheReport, Done, Failed, InspectCache, Started, Submit, Tokens

Answer = Tokens | Done | CacheReport

_INSPECT_SECONDS = 100.0  # a little less than `qwen-edge cache` and people wait
_CLIENTS = 256  # finished requests of which the client is still known

# All supervisors of this process draw from these ids: an id never stands for two requests, whichever engine has them.
REQUEST_IDS: Iterator[int] = itertools.count(1)


class PendingRequest:
    """One request or inspection. While its client waits, engines may die or leave. Used on the daemon's event loop.

    `sent`: the engine that lives now has it. `began`: that engine has begun it. `again`: another engine had it and has
    died. `finished`: the engine has said its last word on it. `failed`: the daemon has given it up. The last two are
    true as soon as it is decided, also if the client reads what it was sent only later."""

    def __init__(self, request: Submit | InspectCache) -> None:
        self.request = request
        self.sent = self.began = self.again = self.finished = self.failed = False
        self._late = False  # it has waited for an engine as long as it may
        self._events: asyncio.Queue[Answer | Failed] = asyncio.Queue()

    @property
    def open(self) -> bool:
        """Whether an engine has yet to answer it."""
        return not (self.finished or self.failed)

    @property
    def computing(self) -> bool:
        """Whether the engine that lives now has it, and goes on until it has answered or is told to abort it."""
        return self.sent and not self.finished

    def hear(self, message: Started | Answer | Failed) -> None:
        """The engine has said this of it."""
        if isinstance(message, Started):
            self.began = True
            return
        self.finished = isinstance(message, Done | CacheReport | Failed)
        self._events.put_nowait(message)

    def fail(self, code: Literal["engine", "stopping", "waited"], detail: str = "") -> None:
        """The daemon gives it up: there will be no answer."""
        self.failed = True
        self._events.put_nowait(Failed(self.request.id, code, detail))

    def return_to_queue(self) -> None:
        """The engine that may have had it has died; the next one gets it."""
        self.sent, self.began, self.again = False, False, self.again or self.sent
        if self._late and self.open:
            self.fail("waited")

    async def events(self, context: int) -> AsyncGenerator[Answer, None]:
        """What is heard of it; Done or CacheReport is the last. Raises RequestError; `context` tokens are what a prompt
        had to fit into.

        A request waits for an engine no longer than its wait_seconds; once an engine has it, the engine keeps to the
        request's limits. An inspection has `_INSPECT_SECONDS` in all."""
        patience = self.request.wait_seconds if isinstance(self.request, Submit) else _INSPECT_SECONDS
        timer = asyncio.get_running_loop().call_later(patience, self._run_out)
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, Failed):
                    raise self._explain(event, context)
                yield event
                if isinstance(event, Done | CacheReport):
                    return
        finally:
            timer.cancel()

    def _run_out(self) -> None:
        self._late = True
        if self.open and (not self.sent or isinstance(self.request, InspectCache)):
            self.fail("waited")

    def _explain(self, failure: Failed, context: int) -> RequestError:
        if failure.code == "context_too_long":
            return context_too_long(failure.tokens, context, at_least=failure.detail == "at least")
        if failure.code == "no_memory":
            return unavailable(f"There is no memory for this request now: {failure.detail}.", retry_after=10)
        if failure.code == "waited" and isinstance(self.request, InspectCache):
            return unavailable(
                f"The engine has not answered within {_INSPECT_SECONDS:.0f} s. Try again.", retry_after=10
            )
        if failure.code == "waited":
            return WaitedTooLongError()
        if failure.code == "bad_request":
            return RequestError(f"The request cannot be used: {failure.detail}.")
        return stopping() if failure.code == "stopping" else engine_failed(failure.detail)


class PendingRequests:
    """All requests and inspections that clients of one supervisor wait for, in the order in which they came. Used on
    the daemon's event loop."""

    def __init__(self, ids: Iterator[int]) -> None:
        """`ids` are given to requests, and never used again."""
        self._ids = ids
        self._by_id = dict[int, PendingRequest]()
        self._clients = dict[int, str]()

    def __iter__(self) -> Iterator[PendingRequest]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, request: Submit | InspectCache) -> PendingRequest:
        """Give it an id, and hold it until it is removed."""
        numbered = msgspec.structs.replace(request, id=next(self._ids))
        if isinstance(numbered, Submit):
            self._remember_client(numbered)
        pending = self._by_id[numbered.id] = PendingRequest(numbered)
        return pending

    def remove(self, pending: PendingRequest) -> None:
        """Its client waits no longer."""
        del self._by_id[pending.request.id]

    def get(self, number: int | None) -> PendingRequest | None:
        """The one with this id, if its client still waits."""
        return None if number is None else self._by_id.get(number)

    @property
    def answers(self) -> int:
        """How many are requests, not inspections."""
        return sum(isinstance(pending.request, Submit) for pending in self)

    def client_of(self, number: int) -> str:
        """Whose request has, or had, this id; empty for one that has been finished for long."""
        return self._clients.get(number, "")

    def unsent(self) -> list[PendingRequest]:
        """Those that the engine that lives now has not got, and is to get."""
        return [pending for pending in self if pending.open and not pending.sent]

    def fail_all(self, code: Literal["engine", "stopping"], detail: str = "") -> None:
        """There will be no answer to any that has none yet."""
        for pending in self:
            if pending.open:
                pending.fail(code, detail)

    def engine_died(self, how: str, *, all_lost: bool) -> int:
        """Fail those that the engine had begun, and those that two engines have had; with `all_lost` every one. The
        others wait for the next engine. Returns how many were lost."""
        lost = [pending for pending in self if pending.open and (all_lost or pending.began or pending.again)]
        for pending in lost:
            pending.fail("engine", how)
        for pending in self:
            pending.return_to_queue()
        return len(lost)

    def _remember_client(self, request: Submit) -> None:
        self._clients[request.id] = request.client
        for old in [number for number in self._clients if number not in self._by_id][:-_CLIENTS]:
            del self._clients[old]
