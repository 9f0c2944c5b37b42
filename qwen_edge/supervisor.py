"""The daemon's handle on the engine: starts it, talks to it, lets it go when nobody needs it, replaces it when it dies.

Requests are submitted and read here as one async iterator each; whatever happens to the engine, each of them ends, in
a Done or in a RequestError. Those that a dying engine had not begun are begun by the next one. Runs on the daemon's
event loop. The process is spawned before there is a loop, so that it loads the model while the daemon is still
importing its HTTP server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Literal

import msgspec

from qwen_edge.asked import Asked
from qwen_edge.device.memory import own_bytes
from qwen_edge.errors import EngineError, UnservableError, engine_failed, stopping, unavailable
from qwen_edge.growth import Growth
from qwen_edge.messages import (
    Abort,
    Began,
    Done,
    Failed,
    Kept,
    Limits,
    Load,
    Loading,
    Look,
    Outbound,
    Ran,
    Ready,
    Segment,
    Stop,
    Submit,
    Tokens,
    Warm,
)
from qwen_edge.process import EngineProcess, Link, Patience

log = logging.getLogger(__name__)

_LONGEST_PAUSE, _HEALTHY_AFTER = 30.0, 60.0  # seconds
_KEEP_SECONDS = 5.0  # to write down what is remembered: while the engine was idle it has done most of that
_CLIENTS, _LOOK_SECONDS = 256, 100.0  # requests whose client is known; a look waits a little less than people do

State = Literal["loading", "ready", "leaving", "asleep", "restarting", "stopped"]


class Supervisor:
    """Create, `spawn`, then `run` on the event loop until `stop`."""

    def __init__(
        self,
        load: Load,
        patience: Patience,
        *,
        start: Callable[[], EngineProcess] = EngineProcess,
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[int], int] = own_bytes,
    ) -> None:
        """`memory` tells the bytes of a process by its number."""
        self._load, self._patience = load, patience
        self._start, self._clock = start, clock
        self._growth = Growth(patience.growth, memory, clock, patience.grown)
        self._ids = itertools.count(1)
        self._asked: dict[int, Asked] = {}
        self._engine: EngineProcess | None = None
        self._link: Link | None = None
        self._looks: dict[int, asyncio.Future[Kept]] = {}
        self._loaded, self._ready = asyncio.Event(), asyncio.Event()
        self._wanted, self._stop = asyncio.Event(), asyncio.Event()
        self._heard = self._served = self._used = clock()
        self._longest = 0  # tokens of the last answer and its prompt: of the next one that goes on, too
        self._deaths, self._next_life = 0, 0.0  # in a row; when an engine is started after one that died
        self._refusal: Failed | None = None  # why this engine said it ends
        self.state: State = "loading"
        self.model: Ready | None = None
        self.on_ran: Callable[[Ran], None] = lambda _: None  # hears of every step
        self._limits, self._clients = Limits(), dict[int, str]()
        self.restarts = 0
        self.last_death: str | None = None

    def spawn(self) -> None:
        """Start the process; needs no event loop."""
        self._engine = self._start()

    @property
    def pid(self) -> int | None:
        return self._engine.process.pid if self._engine else None

    @property
    def pending(self) -> int:
        """Requests submitted and not finished."""
        return len(self._asked)

    @property
    def absence(self) -> float:
        """Seconds since a loaded engine was heard of, or since the beginning; none while it is not wanted."""
        return 0.0 if self.state == "asleep" else self._clock() - self._served

    @property
    def takes(self) -> bool:
        """Whether a request would be answered, perhaps after an engine has loaded the model again."""
        return self.model is not None and self.state != "stopped" and not self.retry_in

    @property
    def retry_in(self) -> float:
        """Seconds until an engine that keeps dying is started again; 0 when requests are taken."""
        return max(0.0, self._next_life - self._clock()) if self.state == "restarting" else 0.0

    async def run(self) -> None:
        """Keep an engine alive until `stop`. Raises EngineError if the very first one cannot load the model."""
        while not self._stop.is_set():
            began = self._clock()
            how = await self._live()
            if self._stop.is_set():
                return
            if self.state == "leaving":
                await self._sleep()
                continue
            if self.model is None:
                failed = self._refusal or Failed(None, "engine", f"The engine died while loading the model: {how}.")
                raise (UnservableError if failed.code == "unservable" else EngineError)(failed.detail)
            self.last_death = self._refusal.detail if self._refusal else how
            self._deaths = 1 if self._clock() - began > _HEALTHY_AFTER else self._deaths + 1
            await self._mourn(0.0 if self._deaths == 1 else min(2.0 ** (self._deaths - 2), _LONGEST_PAUSE))

    async def loaded(self) -> Ready:
        """Wait until a model is loaded."""
        await self._loaded.wait()
        assert self.model
        return self.model

    async def answer(self, request: Submit) -> AsyncGenerator[Tokens | Done, None]:
        """Submit a request (its id is given here) and yield what the engine says of it, Done last. An engine that
        sleeps is woken, and for one that is being replaced the request waits. Leaving early aborts the request. Raises
        RequestError."""
        self._refuse_in_trouble()
        request = msgspec.structs.replace(request, id=next(self._ids))
        asked = self._asked[request.id] = Asked(request)
        self._clients[request.id] = request.client
        for old in [one for one in self._clients if one not in self._asked][:-_CLIENTS]:
            del self._clients[old]
        try:
            self._hand_over()
            async with aclosing(asked.events(self.model.context if self.model else 0)) as events:
                async for event in events:
                    yield event
        finally:
            del self._asked[request.id]
            self._used = self._clock()
            self._let_go_if_due()
            if asked.sent and self._link and not asked.over:
                self._link.send([Abort(request.id)])

    def warm(self, prompt: tuple[Segment, ...]) -> None:
        """Let the engine compute, when it is idle, what a prompt will soon begin with."""
        if self._link and self.state == "ready":
            self._link.send([Warm(prompt)])

    def limit(self, limits: Limits) -> None:
        """What the engine, and every one after it, may do from now on."""
        if limits != self._limits and self._link and self.state == "ready":
            self._link.send([limits])
        self._limits = limits

    def client_of(self, request: int) -> str:
        """Whose request it is, or was; empty for one of long ago."""
        return self._clients.get(request, "")

    async def look(self, key: str = "", *, forget: bool = False, pin_seconds: float | None = None) -> Kept:
        """What the engine remembers of conversations, after it has forgotten or pinned that of this key. An engine that
        sleeps is woken. Raises RequestError."""
        self._refuse_in_trouble()
        self._wanted.set()
        try:
            await asyncio.wait_for(self._ready.wait(), _LOOK_SECONDS)
        except asyncio.TimeoutError:
            raise unavailable("The model is still loading. Try again in a moment.", retry_after=10) from None
        assert self._link
        number = next(self._ids)
        self._looks[number] = asyncio.get_running_loop().create_future()
        self._used = self._clock()
        self._link.send([Look(number, key, forget, pin_seconds)])
        return await self._looks[number]

    async def stop(self, grace: float) -> None:
        """End the engine: politely, and after `grace` seconds not. Requests still running fail."""
        self._stop.set()
        self.state = "stopped"
        for asked in self._asked.values():
            asked.fail("stopping", "")
        if self._link:
            self._link.send([Stop(seconds=0.8 * grace)])
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
        _, link = await loop.create_unix_connection(lambda: Link(engine.socket, self._hear), sock=engine.socket)
        self._link = link
        link.send([msgspec.structs.replace(self._load, awaited=self._longest if self._asked else 0)])
        watch = asyncio.create_task(self._watch(engine, link))
        try:
            await link.closed
        finally:
            watch.cancel()
            self._link = self._engine = None
            self._ready.clear()
            for look in self._looks.values():
                look.set_exception(engine_failed("it ended"))
            self._looks.clear()
        return await loop.run_in_executor(None, engine.how_it_ended)

    async def _sleep(self) -> None:
        """The engine has gone as it was told to: wait until it is wanted, if it is not already."""
        self.state = "asleep"
        if not self._asked and not self._growth.seen:
            log.info("the engine has gone: nobody has asked for %.0f s", self._clock() - self._used)
            self._wanted.clear()
            waits = [asyncio.create_task(event.wait()) for event in (self._wanted, self._stop)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        self._served = self._clock()

    async def _mourn(self, pause: float) -> None:
        """The engine has died: what it had begun is lost, and when it dies again and again everything is. Another one
        is started after a pause."""
        lost = [asked for asked in self._asked.values() if asked.began or asked.again or pause]
        again = f"started again in {pause:.0f} s" if pause else "started again"
        assert self.last_death
        log.error("engine died: %s; %d requests lost, %s", self.last_death, len(lost), again)
        for asked in self._asked.values():
            asked.sent, asked.again = False, True
        for asked in lost:
            asked.fail("engine", self.last_death)
        self.restarts += 1
        self._next_life = self._clock() + pause
        self.state = "restarting"
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), pause)

    async def _watch(self, engine: EngineProcess, link: Link) -> None:
        """Kill an engine that has gone silent: stopped, swapped to death, or stuck in a driver. Let go one that has
        nothing to do for long, or has grown. A driver may hold even a killed process: closing our end lets its requests
        fail all the same."""
        while self.state != "stopped":
            patience = self._patience.loading if self.state == "loading" else self._patience.hanging
            silence = self._clock() - self._heard
            if silence > patience:
                log.error("engine silent for %.0f s while %s: killed", silence, self.state)
                engine.kill()
                link.close()
                return
            if self.state == "ready":
                self._growth.look(engine.process.pid)
                self._let_go_if_due()
            pause = min(1.0, patience / 4, self._patience.idle / 4)
            awake = self._clock() + pause
            await asyncio.sleep(pause)
            late = max(0.0, self._clock() - awake)  # this process may have stood still, and heard nothing
            self._heard = min(awake + late, self._heard + late)

    def _let_go_if_due(self) -> None:
        """Between two requests, an engine that has grown goes; so does one that has been idle for long."""
        idle = self._clock() - self._used > self._patience.idle
        if self.state == "ready" and self._link and not self._asked and (idle or self._growth.seen):
            self.state = "leaving"
            self._link.send([Stop(seconds=_KEEP_SECONDS)])

    def _hear(self, message: Outbound) -> None:
        self._heard = self._clock()
        if isinstance(message, Ready):
            self._welcome(message)
        elif isinstance(message, Began | Tokens | Done | Failed):
            self._hear_of_request(message)
        elif isinstance(message, Ran):
            self.on_ran(message)
        elif isinstance(message, Kept):
            look = self._looks.pop(message.id, None)
            if look and not look.done():
                look.set_result(message)
        elif isinstance(message, Loading):
            log.info("loading the model: %d %%", round(100 * message.fraction))
        if self.state == "ready":
            self._served = self._heard

    def _welcome(self, model: Ready) -> None:
        """An engine has loaded the model."""
        self.model = model
        self._used = self._heard
        self._growth.plan(self.pid or 0, model.bytes_to_come)
        if not self._stop.is_set():
            self.state = "ready"
        if self._link and self._limits != Limits():
            self._link.send([self._limits])
        self._loaded.set()
        self._ready.set()
        self._hand_over()

    def _hear_of_request(self, message: Began | Tokens | Done | Failed) -> None:
        if isinstance(message, Done):
            self._longest = message.prompt_tokens + message.completion_tokens
        if message.id is None:
            self._refusal = message
        elif asked := self._asked.get(message.id):
            if isinstance(message, Began):
                asked.began = True
            else:
                asked.hear(message)

    def _hand_over(self) -> None:
        """Give the engine what it has not got yet, if it is there; wake it if it sleeps."""
        self._wanted.set()
        if self.state == "ready" and self._link:
            for asked in self._asked.values():
                if not asked.sent:
                    asked.sent = True
                    self._link.send([asked.request])

    def _refuse_in_trouble(self) -> None:
        """Raises RequestError while there is no hope of an engine."""
        if self.state == "stopped":
            raise stopping()
        if self.retry_in:
            raise unavailable(
                f"The engine has died {self._deaths} times in a row ({self.last_death}). It is started again in "
                f"{math.ceil(self.retry_in)} s; the server's log has the details.",
                retry_after=math.ceil(self.retry_in) + 2,
            )
