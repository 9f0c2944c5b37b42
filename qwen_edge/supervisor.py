"""The daemon's handle on the engine process: starts it, talks to it, restarts it when it dies or hangs.

Requests are submitted and read here as one async iterator each; whatever happens to the engine, each of them ends, in
a Done or in a RequestError. Runs on the daemon's event loop. The process is spawned before there is a loop, so that it
loads the model while the daemon is still importing its HTTP server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Callable
from typing import Literal

import msgspec

from qwen_edge.errors import EngineError, RequestError, context_too_long, engine_failed, stopping, unavailable
from qwen_edge.messages import (
    Abort,
    Done,
    Failed,
    Inbound,
    Load,
    Loading,
    Outbound,
    Ready,
    Segment,
    Stop,
    Submit,
    Tokens,
    Warm,
    encode,
    outbound_frames,
)
from qwen_edge.spawn import python_command

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE, _HEALTHY_AFTER = 0.5, 30.0, 60.0  # seconds
_REAP_SECONDS = 10.0

State = Literal["loading", "ready", "restarting", "stopped"]


class EngineProcess:
    """One life of the engine: the process and our end of the socket pair to it."""

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


class Supervisor:
    """Create, `spawn`, then `run` on the event loop until `stop`."""

    def __init__(
        self,
        load: Load,
        *,
        load_seconds: float,
        hang_seconds: float,
        start: Callable[[], EngineProcess] = EngineProcess,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An engine that says nothing for `load_seconds` while loading, or `hang_seconds` after, is killed."""
        self._load = load
        self._patience: dict[State, float] = {"loading": load_seconds, "ready": hang_seconds}
        self._start = start
        self._clock = clock
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[Tokens | Done | Failed]] = {}
        self._engine: EngineProcess | None = None
        self._link: _Link | None = None
        self._loaded = asyncio.Event()
        self._stop = asyncio.Event()
        self._heard = self._served = clock()
        self._refusal: str | None = None  # why the engine said it cannot load the model
        self.state: State = "loading"
        self.model: Ready | None = None
        self.restarts = 0

    def spawn(self) -> None:
        """Start the process; needs no event loop."""
        self._engine = self._start()

    @property
    def pid(self) -> int | None:
        return self._engine.process.pid if self._engine else None

    @property
    def pending(self) -> int:
        """Requests submitted and not finished."""
        return len(self._answers)

    @property
    def absence(self) -> float:
        """Seconds since a loaded engine was heard of, or since the beginning."""
        return self._clock() - self._served

    async def run(self) -> None:
        """Keep an engine alive until `stop`. Raises EngineError if the very first one cannot load the model."""
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            began = self._clock()
            reason = await self._live()
            if self._stop.is_set():
                return
            if self.model is None:
                raise EngineError(self._refusal or f"The engine died while loading the model: {reason}.")
            log.error("engine died: %s; %d requests lost", self._refusal or reason, len(self._answers))
            self._fail_all("engine", self._refusal or reason)
            pause = _FIRST_PAUSE if self._clock() - began > _HEALTHY_AFTER else min(2 * pause, _LONGEST_PAUSE)
            self.state, self.restarts = "restarting", self.restarts + 1
            await self._stoppable_sleep(pause)

    async def loaded(self) -> Ready:
        """Wait until a model is loaded."""
        await self._loaded.wait()
        assert self.model
        return self.model

    async def answer(self, request: Submit) -> AsyncGenerator[Tokens | Done, None]:
        """Submit a request (its id is given here) and yield what the engine says of it, Done last.

        Leaving the iterator early aborts the request. Raises RequestError.
        """
        link = self._link
        if self.state != "ready" or link is None:
            raise unavailable(f"The engine is {self.state}. Try again in a moment.", retry_after=2)
        request = msgspec.structs.replace(request, id=next(self._ids))
        events = self._answers[request.id] = asyncio.Queue()
        event: Tokens | Done | Failed | None = None
        try:
            link.send([request])
            while not isinstance(event, Done):
                event = await events.get()
                if isinstance(event, Failed):
                    raise self._explain(event)
                yield event
        finally:
            del self._answers[request.id]
            if not isinstance(event, Done | Failed):
                link.send([Abort(request.id)])

    def warm(self, prompt: tuple[Segment, ...]) -> None:
        """Let the engine compute, when it is idle, what a prompt will soon begin with."""
        if self._link and self.state == "ready":
            self._link.send([Warm(prompt)])

    async def stop(self, grace: float) -> None:
        """End the engine: politely, and after `grace` seconds not. Requests still running fail."""
        self._stop.set()
        self.state = "stopped"
        self._fail_all("stopping", "")
        if self._link:
            self._link.send([Stop()])
            try:
                await asyncio.wait_for(asyncio.shield(self._link.closed), grace)
            except asyncio.TimeoutError:
                log.warning("engine did not end in %.0f s: killed", grace)
        if self._engine:
            self._engine.kill()

    async def _live(self) -> str:
        """One life of the engine; returns how it ended."""
        try:
            engine = self._engine = self._engine or self._start()
        except OSError as error:  # no memory or no descriptors for another process
            return f"it cannot be started: {error}"
        self.state, self._refusal = "loading", None
        self._heard = self._clock()
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: _Link(self._hear), sock=engine.socket)
        self._link = link
        link.send([self._load])
        watch = asyncio.create_task(self._watch(engine, link))
        try:
            await link.closed
        finally:
            watch.cancel()
            self._link = self._engine = None
        return await loop.run_in_executor(None, engine.how_it_ended)

    async def _watch(self, engine: EngineProcess, link: _Link) -> None:
        """Kill an engine that has gone silent: stopped, swapped to death, or stuck in a driver.

        A driver may hold even a killed process; closing our end lets its requests fail all the same."""
        while patience := self._patience.get(self.state):
            silence = self._clock() - self._heard
            if silence > patience:
                log.error("engine silent for %.0f s while %s: killed", silence, self.state)
                engine.kill()
                link.close()
                return
            await asyncio.sleep(min(1.0, patience / 4))

    def _hear(self, message: Outbound) -> None:
        self._heard = self._clock()
        if isinstance(message, Ready):
            self.model, self.state = message, "ready"
            self._loaded.set()
        elif isinstance(message, Tokens | Done | Failed):
            if message.id is None:
                self._refusal = message.detail
            elif events := self._answers.get(message.id):
                events.put_nowait(message)
        elif isinstance(message, Loading):
            log.info("loading the model: %d %%", round(100 * message.fraction))
        if self.state == "ready":
            self._served = self._heard

    def _explain(self, failure: Failed) -> RequestError:
        if failure.code == "context_too_long":
            return context_too_long(failure.tokens, self.model.context if self.model else 0)
        if failure.code == "waited":
            return unavailable(
                "The request has waited as long as wait_seconds (its own, or the server's) allows: the server is busy.",
                retry_after=10,
            )
        if failure.code == "bad_request":
            return RequestError(f"The request cannot be used: {failure.detail}.")
        return stopping() if failure.code == "stopping" else engine_failed(failure.detail)

    def _fail_all(self, code: Literal["engine", "stopping"], detail: str) -> None:
        for request_id, events in self._answers.items():
            events.put_nowait(Failed(request_id, code, detail))

    async def _stoppable_sleep(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)


class _Link(asyncio.Protocol):
    """Our end of the socket pair: frames to messages and back. `closed` is done when the engine's end is."""

    def __init__(self, hear: Callable[[Outbound], None]) -> None:
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
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    def send(self, messages: list[Inbound]) -> None:
        """Never blocks. What is sent to an engine that has just died is lost with it."""
        if self._transport and not self._transport.is_closing():
            self._transport.write(encode(messages))
