"""The daemon's handle on one engine: starts the process, talks to it, lets it go while nobody needs it, and replaces it
when it dies.

Whatever happens to the engine, every request, and every inspection of its cache, ends in an answer or in an error. What
a dying engine had not begun goes to the next engine; so does what comes while an engine leaves, loads or is reaped.
`state.py` has the states, `pending.py` what clients wait for. Everything runs on the daemon's event loop; only the
first process is spawned earlier, so that it loads the model while the daemon imports aiohttp.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

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
from qwen_edge.supervisor.liveness import KEEP_SECONDS, Liveness
from qwen_edge.supervisor.memory_watch import MemoryWatch
from qwen_edge.supervisor.notifier import Notifier
from qwen_edge.supervisor.pending import REQUEST_IDS, Answer, PendingRequests
from qwen_edge.supervisor.state import Action, Event, State, transition

log = logging.getLogger(__name__)


class Supervisor:
    """Create, `spawn`, then `run` on the event loop until `stop`. Several may exist, each with an engine of its own.

    `_change` alone changes `state`, by this table (`state.py`); an event that it does not list changes nothing. Who
    waits for a state waits on `_changed`, which `_change` fires.

    | state | event | next state | what is done |
    |---|---|---|---|
    | LOADING | LOADED | READY | SEND_LIMITS SEND_REQUESTS |
    | LOADING | CLOSED | REAPING | |
    | LOADING | ENDED | RESTARTING | BURY |
    | LOADING | HOPELESS | STOPPED | BURY |
    | READY | NEEDED | READY | SEND_REQUESTS |
    | READY | UNNEEDED | LEAVING | SEND_STOP |
    | READY | CLOSED | REAPING | |
    | LEAVING | ENDED | ASLEEP | |
    | ASLEEP | NEEDED | LOADING | |
    | REAPING | ENDED | RESTARTING | BURY |
    | REAPING | HOPELESS | STOPPED | BURY |
    | RESTARTING | PAUSED | LOADING | |
    | every state but STOPPED | STOP | STOPPED | FAIL_REQUESTS |

    LOADING begins before `run` does. Whenever `run` finds this state, it takes or starts an engine process.
    """

    def __init__(
        self,
        load: Load,
        patience: Patience,
        *,
        start: Callable[[], EngineProcess] = EngineProcess,
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[int], int] = own_bytes,
        ids: Iterator[int] = REQUEST_IDS,
    ) -> None:
        """`memory` returns the bytes of a process, given its process id. `ids` are given to requests: supervisors that
        share the iterator never give one id twice."""
        self._load, self._start = load, start
        self._liveness = Liveness(patience, clock)
        self._memory = MemoryWatch(patience.growth, memory, clock, patience.grown)
        self._deaths = Deaths(clock)
        self._requests = PendingRequests(ids)
        self._spawned: EngineProcess | None = None  # until `run` takes it over
        self._life: Life | None = None  # until its process has ended
        self._changed = Notifier()
        self._how_it_ended = ""  # the engine that ended last
        self._longest = 0  # tokens of the last prompt and its answer: the next turn of that conversation has them too
        self._limits = Limits()
        self.model: Ready | None = None
        self.state = State.LOADING
        self.on_ran: Callable[[StepStats], None] = lambda _: None  # gets the figures of every step

    # what others see

    @property
    def pid(self) -> int | None:
        """Of the engine process, if there is one."""
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
        return self._requests.answers

    @property
    def absence(self) -> float:
        """Seconds since a loaded engine was heard of, or since the beginning; 0 while no engine is needed."""
        return 0.0 if self.state is State.ASLEEP else self._liveness.absence

    @property
    def takes(self) -> bool:
        """Whether a request would be answered, perhaps after an engine has loaded the model again."""
        no_trouble = self.state is not State.STOPPED and not self.retry_in and not self._deaths.doubtful
        return self.model is not None and no_trouble

    @property
    def condition(self) -> str:
        """The state's name; `failing` instead of `ready` for an engine of which it is doubtful that it can answer."""
        return "failing" if self.state is State.READY and self._deaths.doubtful else self.state.value

    @property
    def retry_in(self) -> float:
        """Seconds until an engine that keeps dying is started again; 0 when requests are taken."""
        return self._deaths.pause if self.state is State.RESTARTING else 0.0

    def client_of(self, request: int) -> str:
        """The client whose request has, or had, this id; empty for one that has been finished for long."""
        return self._requests.client_of(request)

    # what others ask for

    def spawn(self) -> None:
        """Start the process; needs no event loop. If that fails, `run` tries again, and says why it fails."""
        with contextlib.suppress(OSError):
            self._spawned = self._start()

    async def loaded(self) -> Ready | None:
        """Wait until a model is loaded; None if the supervisor has stopped before."""
        await self._changed.until(lambda: self.model is not None or self.state is State.STOPPED)
        return self.model

    async def answer(self, request: Submit) -> AsyncGenerator[Tokens | Done, None]:
        """Submit a request (its id is given here) and yield what the engine says of it, Done last. Wakes an engine that
        is asleep, and waits for one that is being replaced. Leaving early aborts the request. Raises RequestError."""
        async with aclosing(self._ask(request)) as events:
            async for event in events:
                assert not isinstance(event, CacheReport)
                yield event

    async def inspect_cache(self, wanted: InspectCache) -> CacheReport:
        """Which conversations the engine remembers, after it has done what is wanted (its id is given here). Waits for
        an engine as a request does. Raises RequestError."""
        async with aclosing(self._ask(wanted)) as events:
            report = await anext(events)
        assert isinstance(report, CacheReport)
        return report

    def warm(self, wanted: Warm) -> None:
        """Let the engine compute, when it is idle, what a prompt will soon begin with. Without an engine that is ready
        nothing happens."""
        if self.state is State.READY and self._life:
            self._life.send([wanted])

    def limit(self, limits: Limits) -> None:
        """What the engine, and every one after it, may do from now on."""
        changed, self._limits = limits != self._limits, limits
        if changed and self.state is State.READY and self._life:
            self._life.send([limits])

    async def stop(self, grace: float) -> None:
        """Fail all requests and end the engine: it is told to, and killed if it has not ended after `grace` seconds."""
        self._change(Event.STOP)
        if life := self._life:
            life.send([Stop(seconds=0.8 * grace)])
            try:
                await asyncio.wait_for(self._changed.until(lambda: self._life is None), grace)
            except asyncio.TimeoutError:
                log.warning("engine did not end in %.0f s: killed", grace)
                life.give_up("stopped")
        elif self._spawned:
            self._spawned.kill()

    # the state

    def _change(self, event: Event) -> None:
        """The only place where the state changes."""
        self.state, actions = transition(self.state, event)
        for action in actions:
            self._do(action)
        self._changed.fire()

    def _do(self, action: Action) -> None:
        if action is Action.SEND_LIMITS and self._life and self._limits != Limits():
            self._life.send([self._limits])
        elif action is Action.SEND_REQUESTS and self._life:
            for pending in self._requests.unsent():
                pending.sent = True
                self._life.send([pending.request])
        elif action is Action.SEND_STOP and self._life:
            self._liveness.begin()
            self._life.send([Stop(seconds=KEEP_SECONDS)])
        elif action is Action.BURY:
            self._bury(self._how_it_ended)
        elif action is Action.FAIL_REQUESTS:
            self._requests.fail_all("stopping")

    def _bury(self, how: str) -> None:
        """What the dead engine had begun is lost, and when engines keep dying every request is."""
        if any(pending.began and pending.open for pending in self._requests):
            self._deaths.failed()
        pause = self._deaths.died(how)
        lost = self._requests.engine_died(how, all_lost=pause > 0 or self.model is None)
        if self.model is not None:
            again = f"started again in {pause:.0f} s" if pause else "started again"
            log.error("engine died: %s; %d requests lost, %s", how, lost, again)

    # the main loop

    async def run(self) -> None:
        """Keep an engine alive until `stop`. Raises EngineError if the very first one cannot load the model."""
        while self.state is not State.STOPPED:
            if self.state is State.LOADING:
                await self._run_engine()
            elif self.state is State.ASLEEP:
                await self._sleep()
            else:
                assert self.state is State.RESTARTING, self.state
                await self._back_off()

    async def _run_engine(self) -> None:
        """From the start of an engine process to its end. Raises EngineError if no engine has ever loaded the model."""
        self._liveness.begin()
        self._deaths.born()
        last_words = None
        try:
            engine, self._spawned = self._spawned or self._start(), None
        except OSError as error:  # no memory or no descriptors for another process
            self._how_it_ended = f"it cannot be started: {error}"
        else:
            self._how_it_ended, last_words = await self._live(engine)
        if self.model is None and self.state is not State.STOPPED:
            self._change(Event.HOPELESS)
            raise cannot_start(self._how_it_ended, last_words)
        self._change(Event.ENDED)

    async def _live(self, engine: EngineProcess) -> tuple[str, Failed | None]:
        """How the engine ended, and its last words if it had any."""
        life = self._life = Life(engine, self._hear)
        load = msgspec.structs.replace(self._load, awaited=self._longest if self._requests else 0)
        try:
            await life.talk(load, lambda: self._watch(life))
            self._change(Event.CLOSED)
            return await life.reap(), life.last_words
        finally:
            self._life = None

    async def _sleep(self) -> None:
        """Wait until an engine is needed: at once, if a request has come while the old one left."""
        if self._requests or self._memory.exceeded:
            self._change(Event.NEEDED)
        else:
            log.info("the engine has gone: nobody has asked for %.0f s", self._liveness.unused)
        await self._changed.until(lambda: self.state is not State.ASLEEP)
        self._liveness.woken()

    async def _back_off(self) -> None:
        """Wait for the pause after a death, or for the stop."""
        with contextlib.suppress(asyncio.TimeoutError):
            stopped = self._changed.until(lambda: self.state is not State.RESTARTING)
            await asyncio.wait_for(stopped, self._deaths.pause)
        self._change(Event.PAUSED)

    # beside a living engine

    async def _watch(self, life: Life) -> None:
        """Kill an engine that has gone silent: stopped, swapped to death, or stuck in a driver. Let an engine go that
        has had nothing to do for long, or is too large."""
        while self.state is not State.STOPPED:
            if how := self._liveness.overdue(self.state):
                log.error("engine %s: killed", how)
                life.give_up(how)
                return
            if self.state is State.READY:
                self._memory.check(life.pid)
                self._let_go_if_unneeded()
            await self._liveness.pause(self.state)

    def _let_go_if_unneeded(self) -> None:
        """Between two requests, an engine that is too large goes; so does one that has been idle for long. One that
        has just died does not go: it has died."""
        unneeded = self._liveness.idle_for_long() or self._memory.exceeded
        if unneeded and not self._requests and self._life and self._life.hears:
            self._change(Event.UNNEEDED)

    def _hear(self, message: Outbound) -> None:
        """Raises nothing: an error of ours ends no engine, but is logged, and told to whoever waits for the message."""
        self._liveness.heard(self.state)
        try:
            self._take(message)
        except Exception:
            log.exception("bug: a message of the engine could not be handled")
            if pending := self._requests.get(getattr(message, "id", None)):
                pending.fail("engine", "an error of the daemon's")

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
        self._liveness.used()
        self._deaths.loaded()
        self._memory.plan(self.pid or 0, model.bytes_to_come)
        if model.tuning:  # the next engine need not measure it again
            self._load = msgspec.structs.replace(self._load, measured={**self._load.measured, model.site: model.tuning})
        self._change(Event.LOADED)
        self._liveness.heard(self.state)

    def _hear_of_request(self, message: Started | Tokens | Done | Failed | CacheReport) -> None:
        if isinstance(message, Done):
            self._longest = message.prompt_tokens + message.completion_tokens
            self._deaths.answered()
        elif isinstance(message, Failed) and message.code == "engine":
            self._deaths.failed()
        if pending := self._requests.get(message.id):
            pending.hear(message)

    async def _ask(self, request: Submit | InspectCache) -> AsyncGenerator[Answer, None]:
        """Hand the request to this engine or to the next, and yield what is said of it. Raises RequestError."""
        if self.state is State.STOPPED:
            raise stopping()
        if self.retry_in:
            raise self._deaths.refusal()
        pending = self._requests.add(request)
        try:
            self._change(Event.NEEDED)
            async with aclosing(pending.events(self.model.context if self.model else 0)) as events:
                async for event in events:
                    yield event
        finally:
            self._requests.remove(pending)
            if self._life and pending.computing:
                self._life.send([Abort(pending.request.id)])
            self._liveness.used()
            self._let_go_if_unneeded()
