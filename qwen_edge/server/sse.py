"""A stream of events to one client, which may read slowly or wait long for the first event.

Unsent events wait in the transport's buffer. So a slow client delays nothing else: the request ends, and its sequence
is free, when the engine is done. The buffer is bounded, because the length of an answer is (max_tokens, the context).
Connections limits the unsent bytes of all clients together, and cuts off clients that read nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any

import msgspec
from aiohttp import web

EVENTS, LINES = "text/event-stream", "application/x-ndjson"
"""The content types of server-sent events, and of lines of JSON."""

_COMMENT = b": still working\n\n"  # clients ignore lines that begin with a colon
_UNBOUNDED = 1 << 62  # bytes


def data_event(data: Any) -> bytes:
    """A server-sent event with this JSON."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def named_event(data: Mapping[str, Any]) -> bytes:
    """A server-sent event with this JSON, and the name that stands in it as `type`."""
    return b"event: " + str(data["type"]).encode() + b"\n" + data_event(data)


class EventStream:
    """A context manager. While it is open, sending does not wait for the client. If the events are server-sent events,
    a comment is sent after `quiet_seconds` without one, so that no proxy closes the connection; other content types
    have no comments. Call `end` afterwards.

    Headers are sent with the first event or comment. Raises ConnectionError if the client has disconnected."""

    def __init__(
        self,
        request: web.Request,
        quiet_seconds: float,
        headers: Mapping[str, str] = MappingProxyType({}),
        content_type: str = EVENTS,
    ) -> None:
        self._request = request
        self._quiet_seconds = quiet_seconds
        self._clock = asyncio.get_running_loop().time
        self._last = self._clock()
        self._sending = asyncio.Lock()
        self._comments: asyncio.Task[None] | None = None
        self._response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})
        self._response.content_type = content_type

    @property
    def begun(self) -> bool:
        """Whether the headers are sent. From then on an error can only be sent as an event."""
        return self._response.prepared

    async def __aenter__(self) -> EventStream:
        self._limit_buffer(_UNBOUNDED)
        if self._response.content_type == EVENTS:
            self._comments = asyncio.create_task(self._fill_silence())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._comments:
            self._comments.cancel()
            await asyncio.gather(self._comments, return_exceptions=True)
        self._limit_buffer(None)

    async def send(self, data: bytes) -> None:
        """Send complete events, framed by the dialect."""
        async with self._sending:
            if not self._response.prepared:
                await self._response.prepare(self._request)
            self._last = self._clock()
            await self._response.write(data)

    async def end(self, last: bytes = b"") -> web.StreamResponse:
        """Send `last` and end the stream. Waits until the client has read nearly everything."""
        if last:
            await self.send(last)
        await self._response.write_eof()
        return self._response

    async def _fill_silence(self) -> None:
        with contextlib.suppress(ConnectionError):  # the next `send` raises it again
            while True:
                due = self._last + self._quiet_seconds
                if due <= self._clock():
                    await self.send(_COMMENT)
                else:
                    await asyncio.sleep(due - self._clock())

    def _limit_buffer(self, most: int | None) -> None:
        """Let a write wait for the client only while more than `most` bytes are unsent; None: asyncio's default."""
        if self._request.transport:
            self._request.transport.set_write_buffer_limits(most)
