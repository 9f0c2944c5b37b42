"""The connections of the HTTP server: how many there may be, and how long one may hold its place for nothing.

aiohttp answers requests; what it leaves open is here. A connection that sends no whole request, one that is kept alive,
and one whose client does not take the answer are closed after a while, whatever they were asked for. When there is no
place for a new one, the oldest that has no request in flight goes. What waits to be sent is bounded for all together:
answers wait in the transports' buffers, so that a client that reads slowly holds up nobody (see stream.py).
Used on the daemon's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from qwen_edge.config.schema import ServerConfig
from qwen_edge.core.errors import RequestError, internal_error, unavailable
from qwen_edge.core.printable import printable
from qwen_edge.server.openai.errors import error_object, error_response, http_error_response

log = logging.getLogger(__name__)

_LINGER = 10.0  # seconds for the rest of a body that nobody reads
_HURRY = 5.0  # seconds of standing still that end a connection while the daemon is stopping
_UNREAD = 32 << 20  # bytes that may wait to be sent, all connections together
_REFUSALS = 8  # connections too many that are told so at a time; more are cut off without a word
_REFUSED_SECONDS = 1.0  # for one of these to read what it is told
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, for no time
# of struct tcp_info in linux/tcp.h: tcpi_unacked (packets), tcpi_bytes_acked, tcpi_notsent_bytes
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


class Connections:
    """All that are open. `run` closes what has had its time."""

    def __init__(self, server: web.Server, settings: ServerConfig, most: int, *, unread: int = _UNREAD) -> None:
        """At most `most` at a time, `unread` bytes waiting for their clients."""
        self._server = server
        self._settings = settings
        self._most = most
        self._unread = unread
        self._stall = settings.stall_seconds
        self._open: dict[Connection, None] = {}  # in the order they came
        self._refused = set[Refusal]()
        make = server.request_factory

        def request_factory(message: Any, payload: StreamReader, protocol: Any, writer: Any, task: Any) -> Any:
            protocol.begun(payload)
            return make(message, payload, protocol, writer, task)

        server.request_factory = request_factory

    @property
    def waiting(self) -> int:
        """Bytes that were answered and that clients have not taken; what the kernel holds is not among them."""
        return sum(connection.waiting for connection in self._open)

    def accept(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        if len(self._open) >= self._most and not self._make_room():
            return Refusal(self._refused, self._most)
        connection = Connection(self._server, self._settings, self._open)
        self._open[connection] = None
        return connection

    async def run(self) -> None:
        """Until it is cancelled."""
        settings = self._settings
        limits = (settings.header_seconds, settings.stall_seconds, settings.keepalive_seconds)
        while True:
            await asyncio.sleep(min(1.0, *(limit / 4 for limit in limits)))
            now = asyncio.get_running_loop().time()
            for connection in list(self._open):
                connection.check(now, self._stall)
            self._bound_memory()

    def hurry(self) -> None:
        """The daemon is stopping: a client that takes nothing of its answer does not hold it up."""
        self._stall = min(self._stall, _HURRY)

    async def emptied(self) -> None:
        """Wait until every answer is on its way."""
        while any(one.waiting for one in self._open):  # noqa: ASYNC110 - a transport tells only its protocol
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Cut off all that are left."""
        for connection in list(self._open):
            connection.drop("the daemon stops")
        for refusal in list(self._refused):
            refusal.drop()
        await asyncio.sleep(0)  # asyncio closes their sockets in its next turn

    def _make_room(self) -> bool:
        """Close the oldest that is idle; if there is none, the oldest whose request is not there yet."""
        idle = [one for one in self._open if not one.busy] or [one for one in self._open if one.is_receiving]
        if not idle:
            return False
        min(idle, key=lambda one: (one.waiting > 0, one.since)).drop("there is no place for another")
        return True

    def _bound_memory(self) -> None:
        """Cut off those that have taken nothing for longest, until no more waits than may."""
        slowest = sorted(self._open, key=lambda one: (one.moved, -one.waiting))
        over = self.waiting - self._unread
        for connection in slowest:
            if over <= 0:
                return
            if connection.waiting:
                over -= connection.waiting
                connection.cut_off(f"clients have left {self._unread} bytes unread, all together")


class Connection(web.RequestHandler):
    """One connection. It is `busy` from the headers of a request until its answer is handed to the transport; `since`
    is when that last began or ended, `moved` when the client last took something, or had nothing to take."""

    def __init__(self, server: web.Server, settings: ServerConfig, opened: dict[Connection, None]) -> None:
        options: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": settings.keepalive_seconds,
            "lingering_time": min(_LINGER, settings.body_seconds),
            "auto_decompress": False,  # see body.py
        }
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, **options)
        self._clock = loop.time
        self._header_seconds = settings.header_seconds
        self._opened = opened
        self._wire: asyncio.Transport | None = None  # aiohttp lets go of its own before everything is sent
        self._body: StreamReader | None = None
        self._taken = 0
        self._heading: float | None = self._clock()  # when the wait for a request's head began, while there is one
        self.busy = False
        self.since = self.moved = self._clock()

    @property
    def is_receiving(self) -> bool:
        """Whether a part of the request's body has still to come."""
        return self._body is not None and not self._body.is_eof()

    @property
    def waiting(self) -> int:
        """Bytes in this process that the client has not taken."""
        return self._wire.get_write_buffer_size() if self._wire else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport
        if self not in self._opened:  # it has gone already: another needed the place
            transport.abort()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._opened.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.busy and self._heading is None and not self.is_receiving:
            self._heading = self._clock()
        super().data_received(data)

    def begun(self, body: StreamReader) -> None:
        """The head of a request is there."""
        self.busy, self._heading, self._body = True, None, body
        self.since = self._clock()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """As aiohttp does it, with OpenAI's error object for what it refuses before our middlewares see it."""
        if isinstance(resp, web.HTTPException):
            words = f"{printable(request.method)} {printable(request.path)}: {resp.reason}."
            resp = http_error_response(resp, words)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self.busy = False
            self.since = self._clock()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is not HTTP gets a 400 and one debug line; a client that has gone, one debug line."""
        if isinstance(exc, ConnectionError):
            log.debug("a client has gone: %s", printable(exc))
            raise exc
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already: no other can follow")
        if status == 400:
            log.debug("not HTTP, from %s: %s", request.remote, printable(message))
            lines = (message or "").strip().splitlines() or ["it cannot be read"]
            error = RequestError(f"The request is not valid HTTP: {printable(lines[0].rstrip(':.'))}.")
        else:
            log.error("a request failed outside its handler", exc_info=exc)
            error = internal_error()
        response = error_response(error)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Of aiohttp: a body that breaks off or is no HTTP while nobody reads it is no fault of ours."""
        exc = kw.get("exc_info")
        if isinstance(exc, ConnectionError | HttpProcessingError | web.RequestPayloadError):
            log.debug("a client has gone, or sends what is not HTTP: %s", printable(exc))
        else:
            super().log_exception(*args, **kw)

    def check(self, now: float, stall: float) -> None:
        """Close it if its time is over."""
        taken, left = _sent(self._wire)
        if not left or taken != self._taken:
            self._taken, self.moved = taken, now
        if now - self.moved > stall:
            self.cut_off(f"its client has taken nothing for {stall:g} s")
        elif self._heading is not None and now - self._heading > self._header_seconds:
            self.drop(f"no whole head of a request within {self._header_seconds:g} s")

    def drop(self, reason: str) -> None:
        """Close it now. What the kernel has taken over already still reaches the client."""
        self._opened.pop(self, None)
        if self._wire:
            log.debug("connection of %s closed: %s", self._wire.get_extra_info("peername"), reason)
            self._wire.abort()

    def cut_off(self, reason: str) -> None:
        """Close it now, and let the kernel, too, forget what its client does not take."""
        if self._wire:
            with contextlib.suppress(OSError):  # it has gone meanwhile
                self._wire.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.drop(reason)


class Refusal(asyncio.Protocol):
    """A connection too many: it is told so, and nothing of what it sends is read."""

    def __init__(self, others: set[Refusal], most: int) -> None:
        self._others = others
        self._most = most
        self._wire: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if len(self._others) >= _REFUSALS:
            transport.abort()
            return
        self._wire = transport
        self._others.add(self)
        error = unavailable(f"All {self._most} connections (server.max_connections) are in use.", retry_after=1)
        body = msgspec.json.encode(error_object(error))
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: {error.retry_after}\r\nConnection: close\r\n\r\n"
        )
        transport.write(head.encode() + body)
        transport.write_eof()  # closed at once, with a request unread, the kernel would take the answer back
        asyncio.get_running_loop().call_later(_REFUSED_SECONDS, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._others.discard(self)

    def drop(self) -> None:
        if self._wire:
            self._wire.abort()


def _sent(wire: asyncio.Transport | None) -> tuple[int, bool]:
    """How far the client's side has got: a number that changes when it takes something, and whether anything is left.

    A slow client may take bytes for minutes before the kernel wants more of us: so the kernel is asked."""
    if wire is None:
        return 0, False
    own = wire.get_write_buffer_size()
    try:
        info = wire.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        unacknowledged, acknowledged, unsent = _TCP_INFO.unpack(info)
    except (OSError, struct.error):  # closed; or a kernel before Linux 4.6
        return -own, own > 0
    return acknowledged, bool(own or unacknowledged or unsent)
