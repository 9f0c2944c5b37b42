"""The daemon's handle on the engine: starts it, talks to it, lets it go when nobody needs it, replaces it when it dies.

Whatever happens to the engine, each request, and each look at what is remembered, ends in an answer or in an error. The
next engine gets what a dying one had not begun, and what comes while one leaves, loads or is reaped. Runs on the
daemon's event loop; only the first process is spawned before, to load the model while aiohttp is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Literal

import msgspec

from qwen_edge.core.errors import stopping
from qwen_edge.device.host.memory import own_bytes
from qwen_edge.protocol.messages import (
    Abort,
    CacheReport,
    Done,
    Failed,
    InspectCache,
    Limits,
    Load,
    Loading,
    Outbound,
    Ready,
    Started,
    StepStats,
    Stop,
    Submit,
    Tokens,
    Warm,
)
from qwen_edge.supervisor.deaths import Deaths
from qwen_edge.supervisor.engine_process import EngineProcess, Life, Patience, cannot_start
from qwen_edge.supervisor.memory_watch import MemoryWatch
from qwen_edge.supervisor.pending import Answer, PendingRequest

log = logging.getLogger(__name__)

_KEEP_SECONDS = 5.0  # to write down what is remembered: while the engine was idle it has done most of that
_CLIENTS = 256  # requests of which it is known whose they were

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
        self._growth = MemoryWatch(patience.growth, memory, clock, patience.grown)
        self._deaths = Deaths(clock)
        self._ids, self._asked = itertools.count(1), dict[int, PendingRequest]()
        self._spawned: EngineProcess | None = None  # and not taken over by `run` yet
        self._life: Life | None = None
        self._loaded, self._wanted, self._stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._heard = self._served = self._used = clock()
        self._longest = 0  # tokens of the last prompt and its answer: the next turn of that conversation has them too
        self._last_words: Failed | None = None  # of the engine that ended last
        self.model: Ready | None = None
        self.state: State = "loading"
        self.on_ran: Callable[[StepStats], None] = lambda _: None  # hears of every step
        self._limits, self._clients = Limits(), dict[int, str]()

    def spawn(self) -> None:
        """Start the process; needs no event loop. If that fails, `run` tries it again, and tells why it cannot be."""
        with contextlib.suppress(OSError):
            self._spawned = self._start()

    @property
    def pid(self) -> int | None:
        return self._life.pid if self._life else None

    @property
    def restarts(self) -> int:
        """Engines that have died."""
        return self._deaths.total

    @property
    def last_death(self) -> str | None:
        """What the last of them died of."""
        return self._deaths.last

    @property
    def pending(self) -> int:
        """Requests submitted and not finished."""
        return sum(isinstance(asked.request, Submit) for asked in self._asked.values())

    @property
    def absence(self) -> float:
        """Seconds since a loaded engine was heard of, or since the beginning; none while it is not wanted."""
        return 0.0 if self.state == "asleep" else self._clock() - self._served

    @property
    def takes(self) -> bool:
        """Whether a request would be answered, perhaps after an engine has loaded the model again."""
        return self.model is not None and self.state != "stopped" and not self.retry_in and not self._deaths.doubtful

    @property
    def condition(self) -> State | Literal["failing"]:
        """The state; `failing` instead of `ready` for an engine of which it is doubtful that it can answer."""
        return "failing" if self.state == "ready" and self._deaths.doubtful else self.state

    @property
    def retry_in(self) -> float:
        """Seconds until an engine that keeps dying is started again; 0 when requests are taken."""
        return self._deaths.pause if self.state == "restarting" else 0.0

    async def run(self) -> None:
        """Keep an engine alive until `stop`. Raises EngineError if the very first one cannot load the model."""
        while not self._stop.is_set():
            how = await self._live()
            if self.state == "leaving":
                await self._sleep()
            elif not self._stop.is_set():
                await self._mourn(how)

    async def loaded(self) -> Ready:
        """Wait until a model is loaded."""
        await self._loaded.wait()
        assert self.model
        return self.model

    async def answer(self, request: Submit) -> AsyncGenerator[Tokens | Done, None]:
        """Submit a request (its id is given here) and yield what the engine says of it, Done last. An engine that
        sleeps is woken, and for one that is being replaced the request waits. Leaving early aborts the request. Raises
        RequestError."""
        request = msgspec.structs.replace(request, id=next(self._ids))
        self._clients[request.id] = request.client
        for old in [one for one in self._clients if one not in self._asked][:-_CLIENTS]:
            del self._clients[old]
        async with aclosing(self._ask(request)) as events:
            async for event in events:
                assert not isinstance(event, CacheReport)
                yield event

    async def look(self, wanted: InspectCache) -> CacheReport:
        """What the engine remembers, after it has done what is wanted, whose id is given here. Waits for an engine as a
        request does. Raises RequestError."""
        async with aclosing(self._ask(msgspec.structs.replace(wanted, id=next(self._ids)))) as events:
            kept = await anext(events)
        assert isinstance(kept, CacheReport)
        return kept

    async def _ask(self, request: Submit | InspectCache) -> AsyncGenerator[Answer, None]:
        """Hand it over, to this engine or to the next, and yield what is said of it."""
        self._refuse_in_trouble()
        asked = self._asked[request.id] = PendingRequest(request)
        try:
            self._hand_over()
            async with aclosing(asked.events(self.model.context if self.model else 0)) as events:
                async for event in events:
                    yield event
        finally:
            del self._asked[request.id]
            self._used = self._clock()
            self._let_go_if_due()
            if asked.sent and self._life and not asked.over:
                self._life.send([Abort(request.id)])

    def warm(self, wanted: Warm) -> None:
        """Let the engine compute, when it is idle, what a prompt will soon begin with."""
        if life := self._ready_life:
            life.send([wanted])

    def limit(self, limits: Limits) -> None:
        """What the engine, and every one after it, may do from now on."""
        if limits != self._limits and (life := self._ready_life):
            life.send([limits])
        self._limits = limits

    def client_of(self, request: int) -> str:
        """Whose request it is, or was; empty for one of long ago."""
        return self._clients.get(request, "")

    async def stop(self, grace: float) -> None:
        """End the engine: politely, and after `grace` seconds not. Requests still running fail."""
        self._stop.set()
        self.state = "stopped"
        for asked in self._asked.values():
            asked.fail("stopping")
        if life := self._life:
            life.send([Stop(seconds=0.8 * grace)])
            try:
                await asyncio.wait_for(life.over.wait(), grace)
            except asyncio.TimeoutError:
                log.warning("engine did not end in %.0f s: killed", grace)
            life.give_up("stopped")
        elif self._spawned:
            self._spawned.kill()

    async def _live(self) -> str:
        """One life of the engine; returns how it ended."""
        self.state, self._last_words, self._heard = "loading", None, self._clock()
        self._deaths.born()
        try:
            engine, self._spawned = self._spawned or self._start(), None
        except OSError as error:  # no memory or no descriptors for another process
            return f"it cannot be started: {error}"
        life = self._life = Life(engine, self._hear)
        load = msgspec.structs.replace(self._load, awaited=self._longest if self._asked else 0)
        try:
            return await life.live(load, lambda: self._watch(life))
        finally:
            self._life, self._last_words = None, life.last_words

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

    async def _mourn(self, how: str) -> None:
        """The engine has died: what it had begun is lost, and when it dies again and again everything is. Another one
        is started after a pause. Raises EngineError if none has ever loaded the model."""
        if any(asked.began for asked in self._asked.values()):
            self._deaths.failed()
        pause = self._deaths.died(how)
        if self.model is None:
            raise cannot_start(how, self._last_words)
        lost = [asked for asked in self._asked.values() if asked.began or asked.again or pause]
        again = f"started again in {pause:.0f} s" if pause else "started again"
        log.error("engine died: %s; %d requests lost, %s", how, len(lost), again)
        for asked in lost:
            asked.fail("engine", how)
        for asked in self._asked.values():
            asked.left_alone()
        self.state = "restarting"
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), pause)

    async def _watch(self, life: Life) -> None:
        """Kill an engine that has gone silent: stopped, swapped to death, or stuck in a driver. Let go one that has
        nothing to do for long, or has grown."""
        while self.state != "stopped":
            patience = self._patience.loading if self.state == "loading" else self._patience.hanging
            silence = self._clock() - self._heard
            if silence > patience:
                how = f"silent for {silence:.0f} s" + (" while loading" if self.state == "loading" else "")
                log.error("engine %s: killed", how)
                life.give_up(how)
                return
            if self.state == "ready":
                self._growth.look(life.pid)
                self._let_go_if_due()
            pause = min(1.0, patience / 4, self._patience.idle / 4)
            awake = self._clock() + pause
            await asyncio.sleep(pause)
            late = max(0.0, self._clock() - awake)  # this process may have stood still, and heard nothing
            self._heard = min(awake + late, self._heard + late)

    def _let_go_if_due(self) -> None:
        """Between two requests, an engine that has grown goes; so does one that has been idle for long."""
        idle = self._clock() - self._used > self._patience.idle
        if (life := self._ready_life) and not self._asked and (idle or self._growth.seen):
            self.state = "leaving"
            life.send([Stop(seconds=_KEEP_SECONDS)])

    def _hear(self, message: Outbound) -> None:
        """Raises nothing: an error of ours ends no engine, but is logged, and told to whoever waits for the message."""
        self._heard = self._clock()
        try:
            self._take(message)
        except Exception:
            log.exception("bug: a message of the engine could not be handled")
            if asked := self._asked.get(getattr(message, "id", None) or 0):
                asked.fail("engine", "an error of the daemon's")
        if self.state == "ready":
            self._served = self._heard

    def _take(self, message: Outbound) -> None:
        if isinstance(message, Ready):
            self._welcome(message)
        elif isinstance(message, Started | Tokens | Done | Failed | CacheReport):
            self._hear_of_request(message)
        elif isinstance(message, StepStats):
            self.on_ran(message)
        elif isinstance(message, Loading):
            log.info("loading the model: %d %%", round(100 * message.fraction))

    def _welcome(self, model: Ready) -> None:
        """An engine has loaded the model."""
        self.model = model
        self._used = self._heard
        self._deaths.loaded()
        self._growth.plan(self.pid or 0, model.bytes_to_come)
        if model.tuning:  # the next engine need not measure it again
            self._load = msgspec.structs.replace(self._load, measured={**self._load.measured, model.site: model.tuning})
        if not self._stop.is_set():
            self.state = "ready"
        if self._life and self._limits != Limits():
            self._life.send([self._limits])
        self._loaded.set()
        self._hand_over()

    def _hear_of_request(self, message: Started | Tokens | Done | Failed | CacheReport) -> None:
        if isinstance(message, Done):
            self._longest = message.prompt_tokens + message.completion_tokens
            self._deaths.answered()
        elif isinstance(message, Failed) and message.code == "engine":
            self._deaths.failed()
        if asked := self._asked.get(message.id or 0):
            if isinstance(message, Started):
                asked.began = True
            else:
                asked.hear(message)

    def _hand_over(self) -> None:
        """Give the engine what it has not got yet, if it is there; wake it if it sleeps."""
        self._wanted.set()
        if life := self._ready_life:
            for asked in [one for one in self._asked.values() if not one.sent]:
                asked.sent = True
                life.send([asked.request])

    @property
    def _ready_life(self) -> Life | None:
        """The engine, while it is ready and hears what it is sent: one that has died may have to be reaped yet."""
        return self._life if self._life and self.state == "ready" and not self._life.over.is_set() else None

    def _refuse_in_trouble(self) -> None:
        """Raises RequestError while there is no hope of an engine."""
        if self.state == "stopped":
            raise stopping()
        if self.retry_in:
            raise self._deaths.refusal()
