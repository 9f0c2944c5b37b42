"""The requests and inquiries for which clients wait, while engines answer them, die or are replaced."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator
from typing import Literal

import msgspec

from qwen_edge.core.errors import (
    RequestError,
    UnusableShapeError,
    WaitedTooLongError,
    context_too_long,
    engine_failed,
    stopping,
    unavailable,
    unusable_request,
)
from qwen_edge.protocol.messages import Done, Embed, Failed, Inquiry, Reply, Started, Submit, Tokens

Answer = Tokens | Done | Reply

_INQUIRY_SECONDS = 100.0  # a little less than the time limit of `qwen-edge cache`
_KNOWN_CLIENTS = 256  # finished requests whose client is still known

# all supervisors of this process take ids from here, so no two requests have the same id, whichever engine has them
REQUEST_IDS: Iterator[int] = itertools.count(1)


class PendingRequest:
    """One request or inquiry. While its client waits, engines may die or be unloaded. Used on the daemon's event
    loop.

    `sent`: the present engine has it. `started`: the present engine has begun it. `retried`: another engine had it and
    has died. `finished`: the engine has sent its last message about it. `failed`: the daemon has failed it. `finished`
    and `failed` are true from that moment on, even if the client reads the events later."""

    def __init__(self, request: Submit | Inquiry) -> None:
        self.request = request
        self.sent = self.started = self.retried = self.finished = self.failed = False
        self._timed_out = False  # whether it has waited for an engine as long as it may
        self._events: asyncio.Queue[Answer | Failed] = asyncio.Queue()

    @property
    def open(self) -> bool:
        """Whether it still needs an engine's answer."""
        return not (self.finished or self.failed)

    @property
    def computing(self) -> bool:
        """Whether the present engine has it, and continues until it has answered or gets an Abort."""
        return self.sent and not self.finished

    def on_message(self, message: Started | Answer | Failed) -> None:
        """Handle a message of the engine about it."""
        if isinstance(message, Started):
            self.started = True
            return
        self.finished = isinstance(message, Done | Reply | Failed)
        self._events.put_nowait(message)

    def fail(self, code: Literal["engine", "stopping", "waited"], detail: str = "") -> None:
        """Fail it: there will be no answer."""
        self.failed = True
        self._events.put_nowait(Failed(self.request.id, code, detail))

    def return_to_queue(self) -> None:
        """The present engine has died; the next engine gets the request, unless it has timed out."""
        self.sent, self.started, self.retried = False, False, self.retried or self.sent
        if self._timed_out and self.open:
            self.fail("waited")

    async def events(self, context: int) -> AsyncGenerator[Answer, None]:
        """Yield the engine's messages about it; Done or the reply is the last. Raises RequestError. `context`: the
        context length in tokens, for the error of a prompt that is too long.

        A request waits for an engine no longer than its wait_seconds; once an engine has the request, the engine
        enforces the request's limits. An inquiry may take `_INQUIRY_SECONDS` in all."""
        limit = self.request.wait_seconds if isinstance(self.request, Submit) else _INQUIRY_SECONDS
        timer = asyncio.get_running_loop().call_later(limit, self._on_timeout)
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, Failed):
                    raise self._explain(event, context)
                yield event
                if isinstance(event, Done | Reply):
                    return
        finally:
            timer.cancel()

    def _on_timeout(self) -> None:
        self._timed_out = True
        if self.open and (not self.sent or isinstance(self.request, Inquiry)):
            self.fail("waited")

    def _explain(self, failure: Failed, context: int) -> RequestError:
        if failure.code == "context_too_long":
            return context_too_long(failure.tokens, context, at_least=failure.detail == "at least")
        if failure.code == "no_memory":
            return unavailable(
                f"There is not enough memory for this request now: {failure.detail}. Try again later, or shorten it.",
                retry_after=10,
            )
        if failure.code == "waited":
            late = f"The engine has not answered within {_INQUIRY_SECONDS:.0f} s. Try again."
            is_inquiry = isinstance(self.request, Inquiry)
            return unavailable(late, retry_after=10) if is_inquiry else WaitedTooLongError()
        if failure.code in ("bad_shape", "bad_call_shape"):
            return UnusableShapeError(failure.detail, of_call=failure.code == "bad_call_shape")
        if failure.code == "bad_request":
            return unusable_request(failure.detail)
        return stopping() if failure.code == "stopping" else engine_failed(failure.detail)


class PendingRequests:
    """The requests and inquiries of one supervisor for which clients wait, in order of arrival. Used on the daemon's
    event loop."""

    def __init__(self, ids: Iterator[int]) -> None:
        """`ids`: the ids for new requests."""
        self._ids = ids
        self._by_id = dict[int, PendingRequest]()
        self._clients = dict[int, str]()

    def __iter__(self) -> Iterator[PendingRequest]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, request: Submit | Inquiry) -> PendingRequest:
        """Give the request an id, and keep it until `remove`."""
        numbered = msgspec.structs.replace(request, id=next(self._ids))
        if isinstance(numbered, Submit | Embed):
            self._remember_client(numbered)
        pending = self._by_id[numbered.id] = PendingRequest(numbered)
        return pending

    def remove(self, pending: PendingRequest) -> None:
        """The client no longer waits for it."""
        del self._by_id[pending.request.id]

    def get(self, number: int | None) -> PendingRequest | None:
        """The pending request with this id; None if its client no longer waits."""
        return None if number is None else self._by_id.get(number)

    @property
    def request_count(self) -> int:
        """The number of requests, without inquiries."""
        return sum(isinstance(pending.request, Submit) for pending in self)

    @property
    def running_count(self) -> int:
        """The number of requests that the present engine has begun and not finished."""
        return sum(pending.started and pending.computing for pending in self)

    def client_of(self, number: int) -> str:
        """The client whose request has, or had, this id; empty for a request that finished long ago."""
        return self._clients.get(number, "")

    def unsent(self) -> list[PendingRequest]:
        """Those that the present engine does not have yet."""
        return [pending for pending in self if pending.open and not pending.sent]

    def fail_all(self, code: Literal["engine", "stopping"], detail: str = "") -> None:
        """Fail all that have no answer yet."""
        for pending in self:
            if pending.open:
                pending.fail(code, detail)

    def engine_died(self, how: str, *, all_lost: bool) -> int:
        """Fail the requests that the engine had begun, and those that a second engine has lost; with `all_lost`, fail
        all. The others wait for the next engine. Returns the number of failed requests."""
        lost = [pending for pending in self if pending.open and (all_lost or pending.started or pending.retried)]
        for pending in lost:
            pending.fail("engine", how)
        for pending in self:
            pending.return_to_queue()
        return len(lost)

    def _remember_client(self, request: Submit | Embed) -> None:
        self._clients[request.id] = request.client
        for old in [number for number in self._clients if number not in self._by_id][:-_KNOWN_CLIENTS]:
            del self._clients[old]
