"""The engine as the daemon holds it: a process, and our end of the socket pair to it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from qwen_edge.frames import encode, outbound_frames
from qwen_edge.messages import Inbound, Outbound
from qwen_edge.spawn import python_command

_REAP_SECONDS = 10.0


@dataclass(frozen=True)
class Patience:
    """How long the engine may do what, in seconds: say nothing while it loads, and after that; and do nothing before it
    is let go. And how many bytes of memory of its own it may have before it is replaced (None: somewhat more than was
    planned), and for how many seconds it may have more."""

    loading: float
    hanging: float
    idle: float = math.inf
    growth: int | None = None
    grown: float = 60.0


class EngineProcess:
    """One life of the engine. Made anywhere; its socket is then read by a `Link`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            command = python_command("qwen_edge.engine.main", str(theirs.fileno()))
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self.socket = ours

    def kill(self) -> None:
        self.process.kill()

    def how_it_ended(self) -> str:
        """Reap the process, whose socket is closed, and tell how it died. May block for a moment."""
        try:
            code = self.process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return "it cannot be killed: a driver holds it"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class Link(asyncio.Protocol):
    """Frames to messages and back, on the daemon's event loop. `closed` is done when the engine's end is."""

    def __init__(self, ours: socket.socket, hear: Callable[[Outbound], None]) -> None:
        """`ours` is our end of the socket pair."""
        self._socket = ours
        self._hear = hear
        self._frames = outbound_frames()
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._frames.feed(data):
            self._hear(message)

    def connection_lost(self, _error: Exception | None) -> None:
        self._hear_the_last()
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    def _hear_the_last(self) -> None:
        """What a dying engine has said is in the socket yet if writing to it was what failed: asyncio does not read
        it any more. Without it nobody would know which requests had begun."""
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 20):
                self.data_received(data)

    def send(self, messages: list[Inbound]) -> None:
        """Never blocks. What is sent to an engine that has just died is lost with it."""
        if self._transport and not self._transport.is_closing():
            self._transport.write(encode(messages))
