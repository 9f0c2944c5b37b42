"""Server-sent events to one client, which may be slow, or have to wait.

What is sent waits in the transport's buffer and holds up nobody: the engine's Done is heard, and the request's place
free, whether the client has read or not. An answer has an end (its max_tokens, the context), so the buffer has one, and
Connections bounds what waits for all clients together and cuts off those that take nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

from aiohttp import web

_COMMENT = b": still working\n\n"  # clients skip lines that begin with a colon
_UNBOUNDED = 1 << 62  # bytes


class EventStream:
    """A context manager: while it is open, sending does not wait for the client, and after `quiet_seconds` of silence a
    comment is sent, so that no proxy takes the connection for dead. Then `end` the stream.

    Headers go out with the first event or comment. Raises ConnectionError when the client is gone."""

    def __init__(self, request: web.Request, quiet_seconds: float) -> None:
        self._request = request
        self._quiet_seconds = quiet_seconds
        self._clock = asyncio.get_running_loop().time
        self._last = self._clock()
        self._sending = asyncio.Lock()
        self._response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._response.content_type = "text/event-stream"

    @property
    def begun(self) -> bool:
        """Whether headers are out, so that an error can only be an event."""
        return self._response.prepared

    async def __aenter__(self) -> EventStream:
        self._limit_buffer(_UNBOUNDED)
        self._comments = asyncio.create_task(self._fill_silence())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._comments.cancel()
        await asyncio.gather(self._comments, return_exceptions=True)
        self._limit_buffer(None)

    async def send(self, data: bytes) -> None:
        """Whole events, as the dialect frames them."""
        async with self._sending:
            if not self._response.prepared:
                await self._response.prepare(self._request)
            self._last = self._clock()
            await self._response.write(data)

    async def end(self, last: bytes = b"") -> web.StreamResponse:
        """Wait until the client has taken nearly everything."""
        if last:
            await self.send(last)
        await self._response.write_eof()
        return self._response

    async def _fill_silence(self) -> None:
        with contextlib.suppress(ConnectionError):  # whoever sends next hears of it
            while True:
                due = self._last + self._quiet_seconds
                if due <= self._clock():
                    await self.send(_COMMENT)
                else:
                    await asyncio.sleep(due - self._clock())

    def _limit_buffer(self, most: int | None) -> None:
        """A write waits for the client while more than `most` bytes are unsent; None: asyncio's own limit."""
        if self._request.transport:
            self._request.transport.set_write_buffer_limits(most)
