"""The exchange of messages with one engine process, from its start to its end, on the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable

import msgspec

from qwen_edge.core.errors import CrashedError, EngineError, UnservableError
from qwen_edge.core.python_process import FAULTS
from qwen_edge.protocol.framing import encode, outbound_frames
from qwen_edge.protocol.messages import Failed, Inbound, Load, Outbound
from qwen_edge.supervisor.engine_process import EngineProcess, killed_by, reap

log = logging.getLogger(__name__)


class Link(asyncio.Protocol):
    """Turns frames into messages and back. `closed` is done when the engine's end of the socket is closed."""

    def __init__(self, ours: socket.socket, on_message: Callable[[Outbound], None]) -> None:
        """`ours`: the daemon's end of the socket pair. `on_message` gets each message and must not raise."""
        self._socket = ours
        self._on_message = on_message
        self._frames = outbound_frames()
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.decode_error = ""  # why a frame could not be decoded; nothing after that frame can be read

    @property
    def connected(self) -> bool:
        """Whether a message that is sent now may still reach the engine."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.decode_error:
            return
        try:
            messages = self._frames.feed(data)
        except msgspec.MsgspecError as error:
            log.error("bug: the engine has sent an invalid message: %s", error)
            self.decode_error = f"the engine sent an invalid message: {error}"
            self.close()
            return
        for message in messages:
            self._on_message(message)

    def connection_lost(self, _error: Exception | None) -> None:
        self._read_last_messages()
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    def _read_last_messages(self) -> None:
        """Read what is left in the socket. If writing to a dying engine has failed, asyncio stops reading, but the
        engine's last messages are still in the socket. They tell which requests the engine had begun."""
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 20):
                self.data_received(data)

    def send(self, messages: list[Inbound]) -> None:
        """Never blocks. Messages to an engine that has just died are lost."""
        if self._transport and self.connected:
            self._transport.write(encode(messages))


class EngineSession:
    """One engine process, from its start to its end: first `run`, then `wait_for_exit`. Used on the daemon's event
    loop."""

    def __init__(self, engine: EngineProcess, on_message: Callable[[Outbound], None]) -> None:
        """`on_message` gets every message except the engine's last words, and must not raise."""
        self._engine = engine
        self._on_message = on_message
        self._link: Link | None = None
        self.last_words: Failed | None = None  # the engine's own message that says why it ends
        self._kill_reason = ""  # why the daemon killed it

    @property
    def pid(self) -> int:
        return self._engine.process.pid

    @property
    def connected(self) -> bool:
        """Whether a message that is sent now may still reach the engine; False if the engine has just died."""
        return self._link is not None and self._link.connected

    def send(self, messages: list[Inbound]) -> None:
        """Never blocks. Messages to an engine that has just died are lost."""
        if self._link:
            self._link.send(messages)

    async def run(self, load: Load, watch: Callable[[], Awaitable[None]]) -> None:
        """Tell the engine to load the model, and receive its messages until its end of the socket is closed. `watch`
        runs at the same time and may kill the engine. Raises nothing."""
        try:
            await self._run(load, watch())
        except Exception as error:
            log.exception("bug: the engine is killed, because of an error in the daemon")
            self.kill(f"killed because of an error in the daemon: {error!r}")
            if self._link is None:
                self._engine.socket.close()

    async def wait_for_exit(self) -> str:
        """Wait until the process has ended; call it after `run`. Returns the reason: the engine's last words, else the
        reason for which the daemon killed it, else how the process ended. A process that does not end is killed. One
        that a driver holds even then is left behind after some seconds. Raises nothing."""
        ended = await reap(self._engine)
        return self.last_words.detail if self.last_words else self._kill_reason or ended

    def kill(self, why: str) -> None:
        """Kill the engine. A driver may hold even a killed process: closing our end lets its requests fail all the
        same."""
        self._kill_reason = self._kill_reason or why
        self._engine.kill()
        if self._link:
            self._link.close()

    async def _run(self, load: Load, watch: Awaitable[None]) -> None:
        watching = asyncio.ensure_future(watch)
        try:
            loop, ours = asyncio.get_running_loop(), self._engine.socket
            _, link = await loop.create_unix_connection(lambda: Link(ours, self._dispatch), sock=ours)
            self._link = link
            link.send([load])
            await asyncio.wait({watching, link.closed}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            await link.closed
        finally:
            watching.cancel()
        if link.decode_error:
            self.kill(link.decode_error)

    def _dispatch(self, message: Outbound) -> None:
        if isinstance(message, Failed) and message.id is None:
            self.last_words = message
        else:
            self._on_message(message)


def load_error(how: str, last_words: Failed | None) -> EngineError:
    """The error for an engine that ended before any engine has loaded the model. `how` is the result of
    `EngineSession.wait_for_exit`."""
    if last_words is None:
        crashed = how in [killed_by(fault) for fault in FAULTS]
        return (CrashedError if crashed else EngineError)(f"The engine died while it loaded the model: {how}.")
    return (UnservableError if last_words.code == "unservable" else EngineError)(how)
