"""One engine process as the daemon holds it: the process, the daemon's end of the socket pair, its life and end."""

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
    """What the supervisor puts up with before it acts, times in seconds.

    An engine that sends nothing is killed after `loading` while it loads, and after `hanging` later. An engine that has
    nothing to do is told to end after `idle`. An engine that has more than `growth` bytes of memory of its own (None:
    somewhat more than was planned) for `grown` is replaced."""

    loading: float
    hanging: float
    idle: float = math.inf
    growth: int | None = None
    grown: float = 60.0


class EngineProcess:
    """An engine process, from its start on. Made on any thread; a `Link` reads its socket."""

    def __init__(self) -> None:
        """Raises OSError if there is no memory or no descriptor for another process."""
        self.process, self.socket = start_with_socket("qwen_edge.engine.main")
        self._killed = False  # by us

    def kill(self) -> None:
        self._killed = True
        self.process.kill()

    def how_it_ended(self) -> str | None:
        """Reap the process and say how it ended; None while it has not ended. Never blocks."""
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
    """Turns frames into messages and back, on the daemon's event loop. `closed` is done when the engine's end of the
    socket is closed."""

    def __init__(self, ours: socket.socket, hear: Callable[[Outbound], None]) -> None:
        """`ours` is the daemon's end of the socket pair; `hear` gets each message and must not raise."""
        self._socket = ours
        self._hear = hear
        self._frames = outbound_frames()
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.nonsense = ""  # why a frame could not be decoded: nothing that comes after it can be read

    @property
    def hears(self) -> bool:
        """Whether what is sent may still reach the engine."""
        return self._transport is not None and not self._transport.is_closing()

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
        """If writing to a dying engine failed, its last messages are still in the socket, and asyncio does not read
        them any more. Without them nobody would know which requests the engine had begun."""
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 20):
                self.data_received(data)

    def send(self, messages: list[Inbound]) -> None:
        """Never blocks. What is sent to an engine that has just died is lost with it."""
        if self._transport and self.hears:
            self._transport.write(encode(messages))


class Life:
    """One life of an engine on the daemon's event loop, and why it ended: first `talk`, then `reap`."""

    def __init__(self, engine: EngineProcess, hear: Callable[[Outbound], None]) -> None:
        """`hear` gets every message but the engine's last words; it must not raise."""
        self._engine = engine
        self._hear = hear
        self._link: Link | None = None
        self.last_words: Failed | None = None  # why the engine said that it ends
        self._given_up = ""  # why the daemon ended it

    @property
    def pid(self) -> int:
        return self._engine.process.pid

    @property
    def hears(self) -> bool:
        """Whether what is sent may still reach the engine: not if it has just died."""
        return self._link is not None and self._link.hears

    def send(self, messages: list[Inbound]) -> None:
        """Never blocks. What is sent to an engine that has just died is lost with it."""
        if self._link:
            self._link.send(messages)

    async def talk(self, load: Load, watch: Callable[[], Awaitable[None]]) -> None:
        """Let the engine load the model, and hear what it says until its end of the socket is closed. `watch` runs
        beside it and may give the engine up. Raises nothing."""
        try:
            await self._talk(load, watch())
        except Exception as error:
            log.exception("bug: the engine was given up over an error of the daemon's")
            self.give_up(f"given up over an error of the daemon's: {error!r}")
            if self._link is None:
                self._engine.socket.close()

    async def reap(self) -> str:
        """Wait until the process has ended, after `talk`. Returns how: in its own last words, the reason for which the
        daemon gave it up, or as the system tells. A process that does not end is killed; one that a driver holds even
        then is left behind after some seconds. Raises nothing."""
        ended = await _reap(self._engine)
        return self.last_words.detail if self.last_words else self._given_up or ended

    def give_up(self, why: str) -> None:
        """Kill the engine. A driver may hold even a killed process: closing our end lets its requests fail all the
        same."""
        self._given_up = self._given_up or why
        self._engine.kill()
        if self._link:
            self._link.close()

    async def _talk(self, load: Load, watch: Awaitable[None]) -> None:
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
    """The error for an engine that ended before any had loaded the model; `how` is what `Life.reap` returned."""
    if last_words is None:
        crashed = how in [_killed_by(fault) for fault in FAULTS]
        return (CrashedError if crashed else EngineError)(f"The engine died while it loaded the model: {how}.")
    return (UnservableError if last_words.code == "unservable" else EngineError)(how)


async def _reap(engine: EngineProcess) -> str:
    """Wait until a process whose end of the socket is closed has ended, and say how. Most end within milliseconds; one
    that does not is killed. Needs neither a thread nor a descriptor: there may be none left."""
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
