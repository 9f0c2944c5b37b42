"""The engine as the daemon holds it: a process, our end of the socket pair to it, and its life from load to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from qwen_edge.core.errors import CrashedError, EngineError, UnservableError
from qwen_edge.core.python_process import FAULTS, start_with_socket
from qwen_edge.protocol.framing import encode, outbound_frames
from qwen_edge.protocol.messages import Failed, Inbound, Load, Outbound

log = logging.getLogger(__name__)

_EXIT_SECONDS, _REAP_SECONDS, _REAP_PAUSE = 5.0, 10.0, 0.01
SPAWN_DESCRIPTORS = 6  # that making an EngineProcess takes for a moment: two pairs, the null device, and one more


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
        """Raises OSError if there is no memory or no descriptor for another process."""
        self.process, self.socket = start_with_socket("qwen_edge.engine.main")
        self._killed = False  # by us

    def kill(self) -> None:
        self._killed = True
        self.process.kill()

    def how_it_ended(self) -> str | None:
        """Reap the process and tell how it ended; None while it has not. Never blocks."""
        code = self.process.poll()
        if code is None:
            return None
        if code == -signal.SIGKILL and not self._killed:
            return "killed by SIGKILL, as the kernel does when memory runs out"
        return _killed_by(-code) if code < 0 else f"exit code {code}"


def _killed_by(number: int) -> str:
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {number}"


class Link(asyncio.Protocol):
    """Frames to messages and back, on the daemon's event loop. `closed` is done when the engine's end is."""

    def __init__(self, ours: socket.socket, hear: Callable[[Outbound], None]) -> None:
        """`ours` is our end of the socket pair; `hear` must not raise."""
        self._socket = ours
        self._hear = hear
        self._frames = outbound_frames()
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.nonsense = ""  # why what came could not be decoded: nothing behind it can be read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.nonsense:
            return
        try:
            messages = self._frames.feed(data)
        except msgspec.MsgspecError as error:
            log.error("bug: the engine has sent what is no message: %s", error)
            self.nonsense = f"it sent what is no message: {error}"
            self.close()
            return
        for message in messages:
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


class Life:
    """One life of the engine on the daemon's event loop, and why it ended."""

    def __init__(self, engine: EngineProcess, hear: Callable[[Outbound], None]) -> None:
        """`hear` gets every message but the engine's last words; it must not raise."""
        self._engine = engine
        self._hear = hear
        self._link: Link | None = None
        self.last_words: Failed | None = None  # why it said it ends
        self._given_up = ""  # why we ended it
        self.over = asyncio.Event()  # it hears and says no more; it may have to be reaped yet

    @property
    def pid(self) -> int:
        return self._engine.process.pid

    def send(self, messages: list[Inbound]) -> None:
        """Never blocks. What is sent to an engine that has just died is lost with it."""
        if self._link:
            self._link.send(messages)

    async def live(self, load: Load, watch: Callable[[], Awaitable[None]]) -> str:
        """Let it load, and hear what it says until it is dead; `watch` runs beside it and may end it. Returns how it
        ended: in its own last words, by what we gave it up for, or as the system tells. Raises nothing."""
        try:
            await self._talk(load, watch())
        except Exception as error:
            log.exception("bug: the engine was given up over an error of the daemon's")
            self.give_up(f"given up over an error of the daemon's: {error!r}")
            if self._link is None:
                self._engine.socket.close()
        self.over.set()
        ended = await _reap(self._engine)
        return self.last_words.detail if self.last_words else self._given_up or ended

    def give_up(self, why: str) -> None:
        """Kill it. A driver may hold even a killed process: closing our end lets its requests fail all the same."""
        self._given_up = self._given_up or why
        self._engine.kill()
        if self._link:
            self._link.close()

    async def _talk(self, load: Load, watch: Awaitable[None]) -> None:
        """Until the engine's end of the socket is closed."""
        watching = asyncio.ensure_future(watch)
        try:
            loop, ours = asyncio.get_running_loop(), self._engine.socket
            _, link = await loop.create_unix_connection(lambda: Link(ours, self._take), sock=ours)
            self._link = link
            link.send([load])
            await asyncio.wait({watching, link.closed}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            await link.closed
        finally:
            watching.cancel()
        if link.nonsense:
            self.give_up(link.nonsense)

    def _take(self, message: Outbound) -> None:
        if isinstance(message, Failed) and message.id is None:
            self.last_words = message
        else:
            self._hear(message)


def cannot_start(how: str, last_words: Failed | None) -> EngineError:
    """What is told of an engine that ended before any had loaded the model; `how` is what `Life.live` returned."""
    if last_words is None:
        crashed = how in [_killed_by(fault) for fault in FAULTS]
        return (CrashedError if crashed else EngineError)(f"The engine died while it loaded the model: {how}.")
    return (UnservableError if last_words.code == "unservable" else EngineError)(how)


async def _reap(engine: EngineProcess) -> str:
    """Wait until a process whose end of the socket is closed has ended, and tell how. Most have in a moment; one that
    has not is killed. Needs neither a thread nor a descriptor, of which there may be none left."""
    loop = asyncio.get_running_loop()
    due, stuck = loop.time() + _EXIT_SECONDS, False
    while (how := engine.how_it_ended()) is None:
        if loop.time() >= due and stuck:
            return "it cannot be killed: a driver holds it"
        if loop.time() >= due:
            due, stuck = loop.time() + _REAP_SECONDS, True
            engine.kill()
        await asyncio.sleep(_REAP_PAUSE)
    return how
