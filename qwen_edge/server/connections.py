"""The connections of the HTTP server: limits on their number, their idle time and their unsent bytes.

aiohttp parses and answers requests. This module adds the limits that aiohttp does not have. A connection is closed
after a while if it sends no complete request head, if it is kept alive without a request, or if its client does not
read the answer. If all places are taken, a new connection replaces the oldest one without a request in flight. Answers
wait in the buffers of the transports, so that a slow client holds up no other (see sse.py); the bytes in all buffers
together are limited. Used on the daemon's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from qwen_edge.config.schema import ServerConfig
from qwen_edge.core.errors import RequestError, internal_error, unavailable
from qwen_edge.core.printable import printable
from qwen_edge.server.dialects import Dialects

log = logging.getLogger(__name__)

_LINGER = 10.0  # seconds to receive the rest of a body that no handler reads
_HURRY = 5.0  # seconds without progress after which a connection is closed while the daemon is stopping
_UNREAD = 32 << 20  # unsent bytes of all connections together
_REFUSALS = 8  # refused connections that get a 503 at the same time; further ones are closed without an answer
_REFUSED_SECONDS = 1.0  # for a refused client to read its 503
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
# of struct tcp_info in linux/tcp.h: tcpi_unacked (packets), tcpi_bytes_acked, tcpi_notsent_bytes
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


class Connections:
    """All open connections. `run` closes those that exceed a limit."""

    def __init__(
        self, server: web.Server, settings: ServerConfig, most: int, dialects: Dialects, *, unread: int = _UNREAD
    ) -> None:
        """`most`: connections at a time. `dialects`: for errors of requests that no handler gets. `unread`: unsent
        bytes of all connections together."""
        self._server = server
        self._settings = settings
        self._most = most
        self._dialects = dialects
        self._unread = unread
        self._stall = settings.stall_seconds
        self._open: dict[Connection, None] = {}  # in the order of their arrival
        self._refused = set[Refusal]()
        make = server.request_factory

        def request_factory(message: Any, payload: StreamReader, protocol: Any, writer: Any, task: Any) -> Any:
            protocol.on_head(payload)
            return make(message, payload, protocol, writer, task)

        server.request_factory = request_factory

    @property
    def waiting(self) -> int:
        """Unsent bytes of answers in this process; bytes in the kernel's buffers are not counted."""
        return sum(connection.waiting for connection in self._open)

    def accept(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        if len(self._open) >= self._most and not self._make_room():
            return Refusal(self._refused, self._most, self._dialects)
        connection = Connection(self._server, self._settings, self._open, self._dialects)
        self._open[connection] = None
        return connection

    async def run(self) -> None:
        """Enforce the limits until cancelled."""
        settings = self._settings
        limits = (settings.header_seconds, settings.stall_seconds, settings.keepalive_seconds)
        while True:
            await asyncio.sleep(min(1.0, *(limit / 4 for limit in limits)))
            now = asyncio.get_running_loop().time()
            for connection in list(self._open):
                connection.check(now, self._stall)
            self._bound_memory()

    def hurry(self) -> None:
        """Shorten the stall limit, because the daemon is stopping: a client that does not read must not delay that."""
        self._stall = min(self._stall, _HURRY)

    async def emptied(self) -> None:
        """Wait until the kernel has taken all unsent bytes."""
        while any(one.waiting for one in self._open):  # noqa: ASYNC110 - a transport notifies only its protocol
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Close all remaining connections."""
        for connection in list(self._open):
            connection.drop("the daemon stops")
        for refusal in list(self._refused):
            refusal.drop()
        await asyncio.sleep(0)  # asyncio closes their sockets in its next turn

    def _make_room(self) -> bool:
        """Close the oldest idle connection; if there is none, the oldest whose request is still arriving. Return
        whether there was one."""
        idle = [one for one in self._open if not one.busy] or [one for one in self._open if one.is_receiving]
        if not idle:
            return False
        min(idle, key=lambda one: (one.waiting > 0, one.since)).drop("a newer connection needs its place")
        return True

    def _bound_memory(self) -> None:
        """If too many bytes are unsent, cut off the connections whose clients have read nothing for longest."""
        slowest = sorted(self._open, key=lambda one: (one.last_progress, -one.waiting))
        over = self.waiting - self._unread
        for connection in slowest:
            if over <= 0:
                return
            if connection.waiting:
                over -= connection.waiting
                connection.cut_off(f"all clients together have left more than {self._unread} bytes unread")


class Connection(web.RequestHandler):
    """One connection. `busy`: from the head of a request until its answer is handed to the transport. `since`: when
    `busy` last changed. `last_progress`: when the client last read something, or had nothing to read."""

    def __init__(
        self, server: web.Server, settings: ServerConfig, opened: dict[Connection, None], dialects: Dialects
    ) -> None:
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
        self._dialects = dialects
        # aiohttp drops its own reference to the transport before everything is sent
        self._transport: asyncio.Transport | None = None
        self._body: StreamReader | None = None
        self._taken = 0
        self._head_wait_began: float | None = self._clock()  # None if no request head is awaited
        self.busy = False
        self.since = self.last_progress = self._clock()

    @property
    def is_receiving(self) -> bool:
        """Whether a part of the request's body has not arrived yet."""
        return self._body is not None and not self._body.is_eof()

    @property
    def waiting(self) -> int:
        """Unsent bytes in this process."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self not in self._opened:  # dropped before this call, because a newer connection took its place
            transport.abort()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._opened.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.busy and self._head_wait_began is None and not self.is_receiving:
            self._head_wait_began = self._clock()
        super().data_received(data)

    def on_head(self, body: StreamReader) -> None:
        """The head of a request has arrived."""
        self.busy, self._head_wait_began, self._body = True, None, body
        self.since = self._clock()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """As in aiohttp, but with an error of the dialect for what aiohttp refuses before our middlewares see it."""
        if isinstance(resp, web.HTTPException):
            words = f"{printable(request.method)} {printable(request.path)}: {resp.reason}."
            resp = self._dialects.at(request.path, request.headers).http_error_response(resp, words)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self.busy = False
            self.since = self._clock()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer invalid HTTP with a 400, and log one debug line; for a lost client, only log one debug line."""
        if isinstance(exc, ConnectionError):
            log.debug("a client has disconnected: %s", printable(exc))
            raise exc
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already: no other can follow")
        if status == 400:
            log.debug("a request from %s is not HTTP: %s", request.remote, printable(message))
            lines = (message or "").strip().splitlines() or ["it cannot be read"]
            error = RequestError(f"The request is not valid HTTP: {printable(lines[0].rstrip(':.'))}.")
        else:
            log.error("a request failed outside its handler", exc_info=exc)
            error = internal_error()
        response = self._dialects.at(request.path, request.headers).error_response(error)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """As in aiohttp, but log at debug level if the client causes the error: the body breaks off, or is not HTTP."""
        exc = kw.get("exc_info")
        if isinstance(exc, ConnectionError | HttpProcessingError | web.RequestPayloadError):
            log.debug("a client has disconnected, or sends what is not HTTP: %s", printable(exc))
        else:
            super().log_exception(*args, **kw)

    def check(self, now: float, stall: float) -> None:
        """Close the connection if it exceeds a time limit. `stall`: seconds in which the client must read something."""
        taken, left = _sent(self._transport)
        if not left or taken != self._taken:
            self._taken, self.last_progress = taken, now
        if now - self.last_progress > stall:
            self.cut_off(f"its client has read nothing for {stall:g} s")
        elif self._head_wait_began is not None and now - self._head_wait_began > self._header_seconds:
            self.drop(f"no complete request head within {self._header_seconds:g} s")

    def drop(self, reason: str) -> None:
        """Close the connection now. Bytes in the kernel's buffer still reach the client."""
        self._opened.pop(self, None)
        if self._transport:
            log.debug("connection of %s closed: %s", self._transport.get_extra_info("peername"), reason)
            self._transport.abort()

    def cut_off(self, reason: str) -> None:
        """Close the connection now, and discard the bytes in the kernel's buffer too."""
        if self._transport:
            with contextlib.suppress(OSError):  # the socket is already closed
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.drop(reason)


class Refusal(asyncio.Protocol):
    """A connection beyond the limit: it gets a 503, and nothing that it sends is read."""

    def __init__(self, others: set[Refusal], most: int, dialects: Dialects) -> None:
        self._others = others
        self._most = most
        self._dialects = dialects
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if len(self._others) >= _REFUSALS:
            transport.abort()
            return
        self._transport = transport
        self._others.add(self)
        error = unavailable(
            f"All {self._most} connections (server.max_connections) are in use. Try again in a moment.", retry_after=1
        )
        transport.write(_as_bytes(self._dialects.default.error_response(error)))
        transport.write_eof()  # not close(): with an unread request, the kernel would discard the answer
        asyncio.get_running_loop().call_later(_REFUSED_SECONDS, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._others.discard(self)

    def drop(self) -> None:
        if self._transport:
            self._transport.abort()


def _as_bytes(response: web.Response) -> bytes:
    """The response as it is sent, for a connection that aiohttp does not serve."""
    body = response.body
    assert isinstance(body, bytes)
    headers = {**response.headers, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _sent(transport: asyncio.Transport | None) -> tuple[int, bool]:
    """The client's progress: a number that changes whenever the client reads, and whether any bytes are left to read.

    A slow client may read from the kernel's buffer for minutes before this process can send more: so the kernel is
    asked which bytes were acknowledged."""
    if transport is None:
        return 0, False
    own = transport.get_write_buffer_size()
    try:
        info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        unacknowledged, acknowledged, unsent = _TCP_INFO.unpack(info)
    except (OSError, struct.error):  # a closed socket, or a kernel older than Linux 4.6
        return -own, own > 0
    return acknowledged, bool(own or unacknowledged or unsent)
