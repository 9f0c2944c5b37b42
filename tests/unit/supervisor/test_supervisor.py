"""The supervisor with engines that hang, die, leave and load at random, in virtual time: nothing is ever lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_edge.core.errors import EngineError, RequestError, UnservableError, WaitedTooLongError
from qwen_edge.protocol.messages import (
    Abort,
    CacheReport,
    Done,
    InspectCache,
    Limits,
    Load,
    Sampling,
    Segment,
    Stop,
    Submit,
    Tokens,
)
from qwen_edge.supervisor.limits import SupervisorLimits
from qwen_edge.supervisor.pending import REQUEST_IDS
from qwen_edge.supervisor.state import EngineState
from qwen_edge.supervisor.supervisor import Supervisor
from tests.unit.supervisor.fake_engine import FakeEngine, Plan, Record
from tests.unit.supervisor.virtual_time import run

LOAD = Load("fake.gguf", 512, 16, 1, 0, "f16", "off", 1.0)
_LIMITS = SupervisorLimits(load_seconds=20.0, hang_seconds=8.0, idle_seconds=5.0, memory_bytes=1000, memory_seconds=2.0)
# Two engines may have a request, and each may load, hang, and be reaped: 20 + 8 + 15 s; a pause lasts up to 30 s. What
# comes while others are computed waits for them, a second each.
_BOUND = 300.0
_NEVER = 1e9


@dataclass
class World:
    """One supervisor and its engines. `plans` are for the first engines; later ones do well."""

    plans: list[Plan] = field(default_factory=list)
    limits: SupervisorLimits = _LIMITS
    ids: Iterator[int] = REQUEST_IDS
    record: Record = field(default_factory=Record)
    failing_starts: int = 0
    bytes: int = 100

    def __post_init__(self) -> None:
        clock = asyncio.get_running_loop().time
        self.supervisor = Supervisor(
            LOAD, self.limits, start=self._start, clock=clock, memory=lambda pid: self.bytes, ids=self.ids
        )
        self.running = asyncio.create_task(self.supervisor.run())

    def _start(self) -> FakeEngine:
        if self.failing_starts:
            self.failing_starts -= 1
            raise OSError("Resource temporarily unavailable")
        number = len(self.record.engines)
        return FakeEngine(self.plans[number] if number < len(self.plans) else Plan(), self.record)

    @property
    def engine(self) -> FakeEngine | None:
        """The latest one."""
        return self.record.engines[-1] if self.record.engines else None

    async def ask(self, text: str = "hi", wait_seconds: float = _NEVER, pause: float = 0.0) -> str:
        """The answer. `pause` seconds pass between two looks at what has come."""
        request = Submit(0, (Segment(text),), Sampling(), 8, 60.0, wait_seconds=wait_seconds, client=text)
        heard: list[Tokens | Done] = []
        async with aclosing(self.supervisor.answer(request)) as events:
            async for event in events:
                heard.append(event)
                await asyncio.sleep(pause)
        assert isinstance(heard[-1], Done)
        assert len({event.id for event in heard}) == 1
        return "".join(event.text for event in heard if isinstance(event, Tokens))

    async def inspect(self, key: str = "") -> bool:
        return (await self.supervisor.ask(InspectCache(0, key), CacheReport)).found

    async def until(self, condition: Callable[[], bool]) -> None:
        await self.supervisor._changed.wait_for(condition)

    async def ready(self) -> None:
        await self.until(lambda: self.supervisor.state is EngineState.READY)

    async def stop(self, grace: float = 5.0) -> None:
        self.record.stopping = True
        await self.supervisor.stop(grace)

    async def end(self) -> None:
        """Stop, and see that everything has come to its end."""
        await self.stop()
        await asyncio.wait_for(asyncio.gather(self.running, return_exceptions=True), _BOUND)
        for engine in self.record.engines:
            assert not engine.alive or not engine._plan.killable
            engine.die("end of the test")
            engine.socket.close()
        assert self.record.mistakes == []


plans = st.builds(
    Plan,
    loads=st.sampled_from(["well", "well", "well", "dies", "hangs"]),
    load_seconds=st.sampled_from([0.0, 1.0, 15.0]),
    parallel=st.integers(1, 2),
    begin_seconds=st.sampled_from([0.0, 0.1, 2.0]),
    answer_seconds=st.sampled_from([0.0, 1.0, 7.0]),
    obeys_stop=st.booleans(),
    leave_seconds=st.sampled_from([0.0, 4.0]),
    reap_seconds=st.sampled_from([0.0, 0.005, 3.0, 30.0]),
    killable=st.sampled_from([True, True, True, False]),
)
asks = st.tuples(st.just("ask"), st.sampled_from([0.5, 10.0, _NEVER, _NEVER]), st.sampled_from([0.0, 0.0, 20.0]))
steps = st.one_of(
    asks,
    asks,
    st.tuples(st.just("inspect")),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["die", "hang", "grow", "shrink", "no process"])),
    st.tuples(st.just("limit"), st.sampled_from([0.0, 0.5, 1.0])),
)
pauses = st.sampled_from([0.0, 0.0, 0.005, 0.3, 0.3, 1.5, 9.0, 35.0])
programs = st.lists(st.tuples(pauses, steps), min_size=3, max_size=25)
ends = st.sampled_from(["stop", "stop at once", "go on"])


class Program:
    """Runs steps against a world, and notes what becomes of each request."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._clients: list[asyncio.Task[object]] = []

    async def step(self, pause: float, what: str, *arguments: float) -> None:
        """Do it, and let so many seconds pass: of none, everybody still has a turn."""
        self._do(what, *arguments)
        await asyncio.sleep(pause)

    def _do(self, what: str, *arguments: float) -> None:
        world, engine = self._world, self._world.engine
        if what == "ask":
            text = f"question {len(self._clients)} "
            self._clients.append(asyncio.create_task(world.ask(text, *arguments)))
        elif what == "inspect":
            self._clients.append(asyncio.create_task(world.inspect("key")))
        elif what == "cancel" and self._clients:
            self._clients[-1 - int(arguments[0]) % len(self._clients)].cancel()
        elif what == "die" and engine:
            engine.die("killed by SIGSEGV")
        elif what == "hang" and engine and engine.alive:
            engine.hang()
        elif what in ("grow", "shrink"):
            world.bytes = 2000 if what == "grow" else 100
        elif what == "no process":
            world.failing_starts += 1
        elif what == "limit":
            world.supervisor.limit(Limits(duty=arguments[0]))

    async def all_ended(self) -> None:
        """Every request has been answered, or failed in words, or was given up by its client, within the bound."""
        if self._clients:
            _, waiting = await asyncio.wait(self._clients, timeout=_BOUND)
            assert not waiting, f"lost: {waiting}"
        for number, client in enumerate(self._clients):
            if client.cancelled():
                continue
            if error := client.exception():
                assert isinstance(error, RequestError), error
                assert str(error)
            else:
                assert client.result() in (True, f"question {number} !")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(plans, max_size=6), st.booleans(), programs, ends)
def test_every_request_and_inspection_ends_in_an_answer_or_in_an_error_that_says_so(
    engines, begins_ready, program, end
):
    async def play() -> None:
        world = World(engines)
        clients = Program(world)
        if begins_ready:
            await world.until(lambda: world.supervisor.state in (EngineState.READY, EngineState.STOPPED))
        for pause, step in program:
            await clients.step(pause, *step)
        if end != "go on":
            await world.stop(5.0 if end == "stop" else 0.0)
        await clients.all_ended()
        for request, lives in world.record.begun.items():
            assert len(lives) == 1, f"request {request} was begun by the engines {lives}"
        for request, lives in world.record.submitted.items():
            assert len(lives) == len(set(lives)) <= 2, f"request {request} was sent to the engines {lives}"
        if end == "go on":
            await _still_serves(world)
        await world.end()
        with pytest.raises(RequestError):
            await world.ask()

    run(play())


async def _still_serves(world: World) -> None:
    """An engine that nobody waits for any more computes nothing; and the next request is answered, or the first engine
    could not load the model."""
    world.failing_starts, world.bytes = 0, 100
    for _ in range(12):  # engines that hang or die while they load, each with its pause
        await asyncio.sleep(_BOUND)
        if world.running.done():
            assert world.supervisor.model is None
            assert isinstance(world.running.exception(), EngineError)
            return
        if world.supervisor.state is EngineState.READY and world.engine and world.engine.alive:
            assert not world.engine.waiting + world.engine.running, "a request was not aborted"
        try:
            assert await asyncio.wait_for(world.ask("still there"), _BOUND) == "still there!"
        except RequestError:
            continue
        return
    raise AssertionError("it serves no more")


@settings(max_examples=40, deadline=None)
@given(programs, programs, st.lists(plans, max_size=4), st.lists(plans, max_size=4))
def test_two_supervisors_side_by_side_never_share_an_id(one, other, its_engines, other_engines):
    async def play() -> None:
        worlds = World(its_engines), World(other_engines)
        clients = [Program(world) for world in worlds]
        await asyncio.sleep(2.0)
        for pair in itertools.zip_longest(one, other):
            for client, step in zip(clients, pair, strict=True):
                if step:
                    await client.step(step[0], *step[1])
        for client in clients:
            await client.all_ended()
        first, second = (set(world.record.submitted) for world in worlds)
        assert not first & second
        for world in worlds:
            await world.end()

    run(play())


def play(program: Callable[[World], object], *engines: Plan, limits: SupervisorLimits = _LIMITS) -> None:
    """Run a test in virtual time with these engines; the first is ready."""

    async def whole() -> None:
        world = World(list(engines), limits)
        await world.ready()
        await program(world)  # type: ignore[misc]
        await world.end()

    run(whole())


def test_one_engine_is_answered_from_while_the_other_supervisors_dies():
    async def program() -> None:
        one, other = World(), World()
        await one.ready()
        await other.ready()
        asking = asyncio.create_task(one.ask("one")), asyncio.create_task(other.ask("other"))
        await asyncio.sleep(0.5)
        one.engine.die("killed by SIGSEGV")
        with pytest.raises(RequestError, match="SIGSEGV"):
            await asking[0]
        assert await asking[1] == "other!"
        assert (one.supervisor.restarts, other.supervisor.restarts) == (1, 0)
        (first,), (second,) = one.record.submitted, other.record.submitted
        assert first != second
        assert (one.supervisor.client_of(first), one.supervisor.client_of(second)) == ("one", "")
        await one.end()
        await other.end()

    run(program())


def test_an_engine_that_is_told_to_leave_and_does_not_is_killed_and_what_came_meanwhile_is_answered():
    async def program(world: World) -> None:
        await world.until(lambda: world.supervisor.state is EngineState.LEAVING)
        assert await asyncio.wait_for(world.ask(), 30.0) == "hi!"
        assert len(world.record.engines) == 2
        assert world.supervisor.restarts == 0

    play(program, Plan(obeys_stop=False))


def test_an_engine_that_leaves_may_be_silent_for_as_long_as_it_was_given_to_write():
    async def program(world: World) -> None:
        await world.until(lambda: world.supervisor.state is EngineState.LEAVING)
        await world.until(lambda: world.supervisor.state is EngineState.ASLEEP)
        assert world.engine.ended == "exit code 0"

    play(
        program,
        Plan(leave_seconds=5.0),
        limits=SupervisorLimits(load_seconds=20.0, hang_seconds=2.0, idle_seconds=10.0),
    )


def test_a_request_over_which_the_daemon_has_failed_is_aborted_in_the_engine():
    async def program(world: World) -> None:
        def broken(message: object) -> None:
            raise KeyError("a mistake of ours")

        asking = asyncio.create_task(world.ask())
        await asyncio.sleep(0)
        (pending,) = world.supervisor._requests
        pending.on_message = broken
        with pytest.raises(RequestError, match="an error in the daemon"):
            await asking
        await asyncio.sleep(0.5)
        assert Abort(pending.request.id) in world.engine.heard
        assert not world.engine.running

    play(program, Plan(answer_seconds=60.0))


@pytest.mark.parametrize("begin_seconds", [0.1, 60.0], ids=["begun", "not begun"])
def test_a_request_whose_client_has_gone_is_aborted(begin_seconds):
    async def program(world: World) -> None:
        asking = asyncio.create_task(world.ask())
        await asyncio.sleep(1.0)
        asking.cancel()
        await asyncio.sleep(0.5)
        (request,) = world.record.submitted
        assert Abort(request) in world.engine.heard

    play(program, Plan(begin_seconds=begin_seconds, answer_seconds=60.0))


def test_a_request_that_two_engines_have_had_is_given_to_no_third():
    async def program(world: World) -> None:
        asking = asyncio.create_task(world.ask())
        for _ in range(2):
            await world.ready()
            await asyncio.sleep(70.0)  # an engine that lives for long is no row of deaths
            world.engine.die("killed by SIGSEGV")
            await world.until(lambda: world.supervisor.state is not EngineState.READY)
        with pytest.raises(RequestError, match="SIGSEGV"):
            await asking
        assert list(world.record.submitted.values()) == [[0, 1]]

    play(program, Plan(begin_seconds=200.0), Plan(begin_seconds=200.0))


def test_a_request_that_has_waited_too_long_when_its_engine_dies_is_given_to_no_other():
    async def program(world: World) -> None:
        asking = asyncio.create_task(world.ask(wait_seconds=5.0))
        await asyncio.sleep(1.0)
        world.engine.hang()
        with pytest.raises(WaitedTooLongError):
            await asking
        await world.ready()
        assert list(world.record.submitted.values()) == [[0]]

    play(program, Plan(begin_seconds=60.0))


def test_no_engine_is_let_go_over_a_long_answer():
    async def program(world: World) -> None:
        world.bytes = 2000
        assert await world.ask() == "hi!"
        assert not world.engine.told_to_stop or world.engine.heard[-1] == Stop(seconds=5.0)
        assert len(world.record.engines) == 1

    play(program, Plan(answer_seconds=100.0))


@pytest.mark.parametrize("answer_seconds", [0.5, 60.0])
def test_what_an_engine_has_answered_or_lost_is_not_sent_to_the_next_for_a_client_that_reads_slowly(answer_seconds):
    async def program(world: World) -> None:
        asking = asyncio.create_task(world.ask(pause=50.0))
        await asyncio.sleep(2.0)
        world.engine.die("killed by SIGSEGV")
        await world.ready()
        if answer_seconds < 2.0:
            assert await asking == "hi!"
        else:
            with pytest.raises(RequestError, match="SIGSEGV"):
                await asking
        assert set(map(tuple, world.record.submitted.values())) == {(0,)}

    play(program, Plan(answer_seconds=answer_seconds))


def test_a_sleeping_engine_that_is_needed_for_a_moment_only_is_woken_all_the_same():
    async def program(world: World) -> None:
        await world.until(lambda: world.supervisor.state is EngineState.ASLEEP)
        asking = asyncio.create_task(world.ask())
        await asyncio.sleep(0)
        asking.cancel()
        await world.ready()
        assert not world.engine.waiting
        assert await world.ask() == "hi!"

    play(program)


def test_requests_that_wait_for_the_very_first_engine_hear_why_it_cannot_load():
    async def program() -> None:
        world = World([Plan(loads="refuses")])
        waiting = asyncio.create_task(world.ask())
        loading = asyncio.create_task(world.supervisor.loaded())
        with pytest.raises(UnservableError, match="no such model"):
            await world.running
        with pytest.raises(RequestError, match="no such model"):
            await waiting
        assert await loading is None
        await world.end()

    run(program())


def test_who_waits_for_the_model_is_woken_by_the_stop():
    async def program() -> None:
        world = World([Plan(loads="hangs")])
        loading = asyncio.create_task(world.supervisor.loaded())
        await asyncio.sleep(1.0)
        await world.stop()
        assert await loading is None
        await world.end()

    run(program())


def test_an_engine_that_has_answered_the_stop_is_not_killed_while_its_process_ends():
    async def program(world: World) -> None:
        await world.stop(grace=5.0)
        assert world.engine.ended == "exit code 0"
        assert Stop(seconds=4.0) in world.engine.heard

    play(program, Plan(reap_seconds=3.0))
