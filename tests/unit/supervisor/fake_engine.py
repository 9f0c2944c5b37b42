"""An engine process of a few lines on the test's own event loop. It does what its plan says and notes what it hears."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Literal

from qwen_edge.protocol.framing import encode, inbound_frames
from qwen_edge.protocol.messages import (
    Abort,
    Beat,
    CacheReport,
    Done,
    Failed,
    Inbound,
    InspectCache,
    Load,
    Outbound,
    Part,
    Ready,
    Sampling,
    Started,
    Stop,
    Submit,
    Tokens,
)

READY = Ready("fake", 512, 0, (), None, Sampling(), 0, 1, 1)


@dataclass(frozen=True)
class Plan:
    """How one engine behaves; times in seconds."""

    loads: Literal["well", "dies", "hangs", "refuses"] = "well"
    load_seconds: float = 1.0
    parallel: int = 1
    begin_seconds: float = 0.1
    answer_seconds: float = 1.0
    obeys_stop: bool = True
    leave_seconds: float = 0.1
    reap_seconds: float = 0.0  # between the end of its socket and the end of its process
    killable: bool = True


@dataclass
class Record:
    """What all engines of one test have heard and done."""

    engines: list[FakeEngine] = field(default_factory=list)
    submitted: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # request -> engines
    begun: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    mistakes: list[str] = field(default_factory=list)  # of the supervisor
    stopping: bool = False  # the supervisor was told to stop, and may end engines that are at work


class FakeEngine:
    """Stands for an EngineProcess. Its end of the socket pair is read and written by callbacks."""

    def __init__(self, plan: Plan, record: Record) -> None:
        self._plan, self._record = plan, record
        self._loop = asyncio.get_running_loop()
        self.number = len(record.engines)
        record.engines.append(self)
        self.process = SimpleNamespace(pid=1000 + self.number)
        self.socket, self._theirs = socket.socketpair()
        for end in (self.socket, self._theirs):
            end.setblocking(False)
        self._loop.add_reader(self._theirs, self._read)
        self._frames = inbound_frames()
        self._timers: list[asyncio.TimerHandle] = []
        self._ready = False
        self.told_to_stop = False
        self.ended = ""  # how
        self._ended_at = 0.0
        self.heard: list[Inbound] = []
        self.waiting: list[int] = []  # ids of requests that it has not begun
        self.running: list[int] = []

    # what the supervisor does with a process

    def kill(self) -> None:
        if self._plan.killable:
            self.die("killed by SIGKILL")

    def how_it_ended(self) -> str | None:
        return self.ended if self.ended and self._loop.time() >= self._ended_at + self._plan.reap_seconds else None

    # what the test does to it

    @property
    def alive(self) -> bool:
        return not self.ended

    def die(self, how: str) -> None:
        if self.alive:
            self.ended, self._ended_at = how, self._loop.time()
            self.hang()
            self._theirs.close()

    def hang(self) -> None:
        """From now on it hears, says and does nothing."""
        self._loop.remove_reader(self._theirs)
        for timer in self._timers:
            timer.cancel()

    # what it does by itself

    def _later(self, seconds: float, do: Callable[..., None], *arguments: object) -> None:
        self._timers.append(self._loop.call_later(seconds, do, *arguments))

    def _say(self, *messages: Outbound) -> None:
        with contextlib.suppress(OSError):  # the daemon's end is closed
            self._theirs.sendall(encode(list(messages)))

    def _read(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self._theirs.recv(1 << 20)
        if not data:
            if self._plan.killable:
                self.die("exit code 0")
            else:
                self.hang()
            return
        for message in self._frames.feed(data):
            self._hear(message)

    def _hear(self, message: Inbound) -> None:
        self.heard.append(message)
        if isinstance(message, Load):
            self._load()
        elif isinstance(message, Stop):
            self._leave()
        elif not self._ready:
            self._record.mistakes.append(f"{type(message).__name__} before Ready")
        elif isinstance(message, Submit):
            self._submitted(message)
        elif isinstance(message, InspectCache):
            self._record.submitted[message.id].append(self.number)
            self._later(self._plan.begin_seconds, self._say, CacheReport(message.id, bool(message.key), ()))
        elif isinstance(message, Abort):
            self._forget(message.id)

    def _load(self) -> None:
        if self._plan.loads == "well":
            self._later(self._plan.load_seconds, self._loaded)
        elif self._plan.loads == "dies":
            self._later(self._plan.load_seconds, self.die, "killed by SIGSEGV")
        elif self._plan.loads == "refuses":
            self._later(self._plan.load_seconds, self._say, Failed(None, "unservable", "no such model"))
            self._later(self._plan.load_seconds, self.die, "exit code 0")

    def _loaded(self) -> None:
        self._ready = True
        self._say(READY)
        self._later(1.0, self._beat)

    def _beat(self) -> None:
        self._say(Beat())
        self._later(1.0, self._beat)

    def _leave(self) -> None:
        if (self.waiting or self.running) and not self._record.stopping:
            self._record.mistakes.append("Stop while requests were running")
        self.told_to_stop = True
        if self._plan.obeys_stop:
            self._later(self._plan.leave_seconds, self.die, "exit code 0")

    def _submitted(self, request: Submit) -> None:
        if self.told_to_stop:
            self._record.mistakes.append("Submit after Stop")
        self._record.submitted[request.id].append(self.number)
        self.waiting.append(request.id)
        self._later(request.wait_seconds, self._waited_too_long, request.id)
        self._later(self._plan.begin_seconds, self._begin, request)

    def _begin(self, request: Submit) -> None:
        if request.id not in self.waiting:
            return
        if len(self.running) >= self._plan.parallel:
            self._later(0.1, self._begin, request)
            return
        self.waiting.remove(request.id)
        self.running.append(request.id)
        self._record.begun[request.id].append(self.number)
        self._say(Started(request.id), Tokens(request.id, (Part("answer", request.prompt[0].text),)))
        self._later(self._plan.answer_seconds, self._finish, request.id)

    def _finish(self, number: int) -> None:
        if number in self.running:
            self._say(Tokens(number, (Part("answer", "!"),)), Done(number, "stop", 1, 0, 2, 0.1, 0.1))
            self._forget(number)

    def _waited_too_long(self, number: int) -> None:
        if number in self.waiting:
            self._say(Failed(number, "waited", ""))
            self._forget(number)

    def _forget(self, number: int) -> None:
        for ids in (self.waiting, self.running):
            if number in ids:
                ids.remove(number)
