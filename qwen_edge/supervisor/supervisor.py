"""The daemon's handle on one engine: starts the process, exchanges messages with it, unloads it while there are no
requests, and replaces it when it dies.

Whatever happens to the engine, every request and every inquiry ends in an answer or in an error. Requests that
a dying engine had not begun go to the next engine; so do requests that arrive while an engine ends, loads or is reaped.
`state.py` has the states, `pending.py` the requests. Everything runs on the daemon's event loop; only the first process
is spawned earlier, so that it loads the model while the daemon imports aiohttp.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import TypeVar

import msgspec

from qwen_edge.core.errors import stopping
from qwen_edge.device.host.memory import own_bytes
from qwen_edge.protocol.messages import (
    Abort,
    Done,
    Failed,
    Inquiry,
    Limits,
    Load,
    Loading,
    Outbound,
    Ready,
    Reply,
    Started,
    StepStats,
    Stop,
    Submit,
    Tokens,
    Warm,
)
from qwen_edge.supervisor.condition import Condition
from qwen_edge.supervisor.engine_process import EngineProcess
from qwen_edge.supervisor.engine_session import EngineSession, load_error
from qwen_edge.supervisor.idle_time import IdleTime
from qwen_edge.supervisor.limits import SupervisorLimits
from qwen_edge.supervisor.liveness import SAVE_SECONDS, Liveness
from qwen_edge.supervisor.memory_watch import MemoryWatch
from qwen_edge.supervisor.pending import REQUEST_IDS, Answer, PendingRequests
from qwen_edge.supervisor.restart_backoff import RestartBackoff
from qwen_edge.supervisor.state import Action, EngineState, Event, transition

log = logging.getLogger(__name__)

_Reply = TypeVar("_Reply", bound=Reply)


class Supervisor:
    """Create, `spawn`, then `run` on the event loop until `stop`. Several may exist, each with an engine of its own.

    Only `_change` changes `state`, by this table (`state.py`); an event that the table does not list changes nothing.
    To wait for a state, wait on `_changed`, which `_change` notifies.

    | state | event | next state | actions |
    |---|---|---|---|
    | LOADING | LOADED | READY | SEND_LIMITS SEND_REQUESTS |
    | LOADING | DISCONNECTED | REAPING | |
    | LOADING | ENDED | RESTARTING | RECORD_DEATH |
    | LOADING | NEVER_LOADED | STOPPED | RECORD_DEATH |
    | READY | NEEDED | READY | SEND_REQUESTS |
    | READY | UNNEEDED | LEAVING | SEND_STOP |
    | READY | DISCONNECTED | REAPING | |
    | LEAVING | ENDED | ASLEEP | |
    | ASLEEP | NEEDED | LOADING | |
    | REAPING | ENDED | RESTARTING | RECORD_DEATH |
    | REAPING | NEVER_LOADED | STOPPED | RECORD_DEATH |
    | RESTARTING | PAUSE_OVER | LOADING | |
    | every state but STOPPED | STOP | STOPPED | FAIL_REQUESTS |

    The first state is LOADING. Whenever `run` finds LOADING, it uses the spawned engine process, or starts one.
    """

    def __init__(
        self,
        load: Load,
        limits: SupervisorLimits,
        *,
        start: Callable[[], EngineProcess] = EngineProcess,
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[int], int] = own_bytes,
        ids: Iterator[int] = REQUEST_IDS,
    ) -> None:
        """`memory` returns the bytes of a process, given its process id. `ids`: the ids for requests; supervisors that
        share the iterator never use an id twice."""
        self._load, self._start = load, start
        self._liveness = Liveness(limits, clock)
        self.idle = IdleTime(limits.idle_seconds, clock)
        self._memory = MemoryWatch(limits.memory_bytes, memory, clock, limits.memory_seconds)
        self._backoff = RestartBackoff(clock)
        self._requests = PendingRequests(ids)
        self._spawned: EngineProcess | None = None  # by `spawn`, until `run` uses it
        self._session: EngineSession | None = None  # of the present engine, until its process has ended
        self._changed = Condition()
        self._how_it_ended = ""  # the last engine
        self._last_tokens = 0  # of the last prompt and its answer: the conversation's next prompt contains them
        self._engine_limits = Limits()  # as last set by `limit`
        self.model: Ready | None = None
        self.state = EngineState.LOADING
        self.on_loading: Callable[[Loading | Ready | None], None] = lambda _: None  # None: an engine has ended
        self.on_step: Callable[[StepStats], None] = lambda _: None  # gets the statistics of every step

    # properties for the rest of the daemon

    @property
    def pid(self) -> int | None:
        """The process id of the engine; None if there is no engine."""
        return self._session.pid if self._session else None

    @property
    def restarts(self) -> int:
        """The number of engines that have died."""
        return self._backoff.total

    @property
    def last_death(self) -> str | None:
        """Why the last of them died."""
        return self._backoff.last_death

    @property
    def pending(self) -> int:
        """The number of requests that are submitted and not finished."""
        return self._requests.request_count

    @property
    def running(self) -> int:
        """The number of requests that the engine has begun and not finished."""
        return self._requests.running_count

    @property
    def absence(self) -> float:
        """Seconds since the last message of a loaded engine, or since the beginning; 0 while no engine is needed."""
        return 0.0 if self.state is EngineState.ASLEEP else self._liveness.absence

    @property
    def accepts_requests(self) -> bool:
        """Whether a request would be answered, perhaps after an engine has loaded the model again."""
        no_trouble = self.state is not EngineState.STOPPED and not self.retry_in and not self._backoff.doubtful
        return self.model is not None and no_trouble

    @property
    def status(self) -> str:
        """The state's name for /health; `failing` instead of `ready` if it is doubtful that the engine can answer."""
        return "failing" if self.state is EngineState.READY and self._backoff.doubtful else self.state.value

    @property
    def retry_in(self) -> float:
        """Seconds until the engine is started again after repeated deaths; 0 when requests are accepted."""
        return self._backoff.pause if self.state is EngineState.RESTARTING else 0.0

    def client_of(self, request: int) -> str:
        """The client whose request has, or had, this id; empty for a request that finished long ago."""
        return self._requests.client_of(request)

    # commands from the rest of the daemon

    def spawn(self) -> None:
        """Start the process; needs no event loop. If that fails, `run` tries again."""
        with contextlib.suppress(OSError):
            self._spawned = self._start()

    async def loaded(self) -> Ready | None:
        """Wait until an engine has loaded the model; None if the supervisor stops before that."""
        await self._changed.wait_for(lambda: self.model is not None or self.state is EngineState.STOPPED)
        return self.model

    async def answer(self, request: Submit) -> AsyncGenerator[Tokens | Done, None]:
        """Submit a request (it gets its id here) and yield the engine's messages about it; Done is the last. Starts an
        engine if none is running, and waits while one is replaced. Closing the generator early aborts the request.
        Raises RequestError."""
        async with aclosing(self._submit(request)) as events:
            async for event in events:
                assert isinstance(event, Tokens | Done)
                yield event

    async def ask(self, inquiry: Inquiry, reply: type[_Reply]) -> _Reply:
        """Send an inquiry (it gets its id here), and return the engine's reply, which is of the type `reply`. Waits for
        an engine as a request does. Raises RequestError."""
        async with aclosing(self._submit(inquiry)) as events:
            event = await anext(events)
        assert isinstance(event, reply)
        return event

    def warm(self, wanted: Warm) -> None:
        """Let the engine compute, when it is idle, the beginning of a prompt that is expected soon. Does nothing if no
        engine is ready."""
        if self.state is EngineState.READY and self._session:
            self._session.send([wanted])

    def limit(self, limits: Limits) -> None:
        """Set the limits of this engine and of every later one."""
        changed, self._engine_limits = limits != self._engine_limits, limits
        if changed and self.state is EngineState.READY and self._session:
            self._session.send([limits])

    async def stop(self, grace: float) -> None:
        """Fail all requests and tell the engine to end; kill it if it has not ended after `grace` seconds."""
        self._change(Event.STOP)
        if session := self._session:
            session.send([Stop(seconds=0.8 * grace)])
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: self._session is None), grace)
            except asyncio.TimeoutError:
                log.warning("the engine did not end within %.0f s, and is killed", grace)
                session.kill("stopped")
        elif self._spawned:
            self._spawned.kill()

    # the state

    def _change(self, event: Event) -> None:
        """The only place where the state changes."""
        self.state, actions = transition(self.state, event)
        for action in actions:
            self._do(action)
        self._changed.notify_all()

    def _do(self, action: Action) -> None:
        if action is Action.SEND_LIMITS and self._session and self._engine_limits != Limits():
            self._session.send([self._engine_limits])
        elif action is Action.SEND_REQUESTS and self._session:
            for pending in self._requests.unsent():
                pending.sent = True
                self._session.send([pending.request])
        elif action is Action.SEND_STOP and self._session:
            self._liveness.start_waiting()
            self.idle.unloading()
            self._session.send([Stop(seconds=SAVE_SECONDS)])
        elif action is Action.RECORD_DEATH:
            self._record_death(self._how_it_ended)
        elif action is Action.FAIL_REQUESTS:
            self._requests.fail_all("stopping")

    def _record_death(self, how: str) -> None:
        """Fail the requests that the dead engine had begun; when engines keep dying, fail every request."""
        if any(pending.started and pending.open for pending in self._requests):
            self._backoff.request_failed()
        pause = self._backoff.engine_died(how)
        lost = self._requests.engine_died(how, all_lost=pause > 0 or self.model is None)
        if self.model is not None:
            when = f"in {pause:.0f} s" if pause else "now"
            log.error("engine died: %s; %d requests lost; another engine is started %s", how, lost, when)

    # the main loop

    async def run(self) -> None:
        """Keep an engine running until `stop`. Raises EngineError if the first engine cannot load the model."""
        while self.state is not EngineState.STOPPED:
            if self.state is EngineState.LOADING:
                await self._run_engine()
            elif self.state is EngineState.ASLEEP:
                await self._wait_until_needed()
            else:
                assert self.state is EngineState.RESTARTING, self.state
                await self._back_off()

    async def _run_engine(self) -> None:
        """Start an engine process, and return when it has ended. Raises EngineError if no engine has ever loaded the
        model."""
        self._liveness.start_waiting()
        self._backoff.engine_started()
        last_words = None
        try:
            engine, self._spawned = self._spawned or self._start(), None
        except OSError as error:  # no memory or no descriptors for another process
            self._how_it_ended = f"the process cannot be started: {error}"
        else:
            self._how_it_ended, last_words = await self._run_session(engine)
        if self.model is None and self.state is not EngineState.STOPPED:
            self._change(Event.NEVER_LOADED)
            raise load_error(self._how_it_ended, last_words)
        self._change(Event.ENDED)

    async def _run_session(self, engine: EngineProcess) -> tuple[str, Failed | None]:
        """Return how the engine ended, and its last words, if there were any."""
        session = self._session = EngineSession(engine, self._on_message)
        load = msgspec.structs.replace(self._load, awaited=self._last_tokens if self._requests else 0)
        try:
            await session.run(load, lambda: self._watch(session))
            self._change(Event.DISCONNECTED)
            return await session.wait_for_exit(), session.last_words
        finally:
            self._session = None
            self.on_loading(None)

    async def _wait_until_needed(self) -> None:
        """Wait until an engine is needed. A request that arrived while the old engine ended needs one at once."""
        if self._requests or self._memory.exceeded:
            self._change(Event.NEEDED)
        else:
            log.info("the model is unloaded: there was no request for %.0f s", self.idle.unused)
        await self._changed.wait_for(lambda: self.state is not EngineState.ASLEEP)
        self._liveness.needed_again()

    async def _back_off(self) -> None:
        """Wait for the pause after a death, or until the daemon stops."""
        with contextlib.suppress(asyncio.TimeoutError):
            stopped = self._changed.wait_for(lambda: self.state is not EngineState.RESTARTING)
            await asyncio.wait_for(stopped, self._backoff.pause)
        self._change(Event.PAUSE_OVER)

    # while an engine runs

    async def _watch(self, session: EngineSession) -> None:
        """Kill an engine that is silent for too long: stopped, swapping, or stuck in a driver. Unload an engine that
        has been idle for too long or is too large."""
        while self.state is not EngineState.STOPPED:
            if how := self._liveness.overdue(self.state):
                log.error("engine %s: it is killed", how)
                session.kill(how)
                return
            if self.state is EngineState.READY:
                self._memory.check(session.pid)
                self._unload_if_unneeded()
            await self._liveness.pause(self.state)

    def _unload_if_unneeded(self) -> None:
        """Without requests, unload an engine that is too large or has been idle for too long. An engine that has just
        died is not unloaded: its death must be counted."""
        unneeded = self.idle.too_long() or self._memory.exceeded
        if unneeded and not self._requests and self._session and self._session.connected:
            self._change(Event.UNNEEDED)

    def _on_message(self, message: Outbound) -> None:
        """Handle a message of the engine. Raises nothing: a bug in the daemon ends no engine, but is logged, and fails
        the request that the message is about."""
        self._liveness.message_received(self.state)
        try:
            self._dispatch(message)
        except Exception:
            log.exception("bug: a message of the engine could not be handled")
            if pending := self._requests.get(getattr(message, "id", None)):
                pending.fail("engine", "an error in the daemon")

    def _dispatch(self, message: Outbound) -> None:
        if isinstance(message, Ready):
            self._on_loaded(message)
        elif isinstance(message, Started | Tokens | Done | Failed | Reply):
            self._on_request_message(message)
        elif isinstance(message, StepStats):
            self.on_step(message)
        elif isinstance(message, Loading):
            self.on_loading(message)

    def _on_loaded(self, model: Ready) -> None:
        """An engine has loaded the model."""
        self.model = model
        self.on_loading(model)
        self.idle.loaded()
        self._backoff.engine_loaded()
        self._memory.plan(self.pid or 0, model.bytes_to_come)
        if model.tuning:  # the next engine need not measure again
            self._load = msgspec.structs.replace(self._load, measured={**self._load.measured, model.site: model.tuning})
        self._change(Event.LOADED)
        self._liveness.message_received(self.state)

    def _on_request_message(self, message: Started | Tokens | Done | Failed | Reply) -> None:
        if isinstance(message, Done):
            self._last_tokens = message.prompt_tokens + message.completion_tokens
            self._backoff.request_answered()
        elif isinstance(message, Failed) and message.code == "engine":
            self._backoff.request_failed()
        if pending := self._requests.get(message.id):
            pending.on_message(message)

    async def _submit(self, request: Submit | Inquiry) -> AsyncGenerator[Answer, None]:
        """Send the request to this engine or to the next one, and yield its messages. Raises RequestError."""
        if self.state is EngineState.STOPPED:
            raise stopping()
        if self.retry_in:
            raise self._backoff.refusal()
        pending = self._requests.add(request)
        try:
            self._change(Event.NEEDED)
            async with aclosing(pending.events(self.model.context if self.model else 0)) as events:
                async for event in events:
                    yield event
        finally:
            self._requests.remove(pending)
            if self._session and pending.computing:
                self._session.send([Abort(pending.request.id)])
            self.idle.used()
            self._unload_if_unneeded()
