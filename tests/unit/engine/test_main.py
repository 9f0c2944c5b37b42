"""The engine process's loop over a socket pair: what it answers, when it speaks unasked, and when it ends."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from qwen_edge.core.errors import EngineError, UnservableError
from qwen_edge.engine import main, restoring
from qwen_edge.engine.huge_pages import HugePages
from qwen_edge.engine.loop import Engine
from qwen_edge.engine.main import Channel, _hear, serve
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.file import read_cells
from qwen_edge.protocol.framing import encode, outbound_frames
from qwen_edge.protocol.messages import (
    Abort,
    Beat,
    Done,
    Failed,
    Files,
    Load,
    Ready,
    Sampling,
    Segment,
    StepStats,
    Stop,
    Submit,
    Tokens,
)
from tests.fakes import FakeBackend, ready


class Daemon:
    """The other end: sends messages, and reads until something has been said."""

    def __init__(self, backend: FakeBackend | Exception, beat_seconds: float, disk_of=None) -> None:
        self._socket, theirs = socket.socketpair()
        self._frames = outbound_frames()
        self.heard: list = []
        self.thread = threading.Thread(target=self._serve, args=(theirs, backend, disk_of))
        self.thread.start()
        self.send(Load("m", 512, 16, 1, 0, "f16", "off", beat_seconds, files=Files("here", 1, 1) if disk_of else None))

    def send(self, *messages) -> None:
        self._socket.sendall(encode(list(messages)))

    def hear(self, enough: Callable[[list], bool]) -> list:
        while not enough(self.heard):
            data = self._socket.recv(1 << 16)
            assert data, "the engine ended"
            self.heard += self._frames.feed(data)
        return self.heard

    def close(self) -> None:
        self._socket.close()
        self.thread.join()

    @staticmethod
    def _serve(theirs: socket.socket, backend: FakeBackend | Exception, disk_of) -> None:
        def load(_load: Load, _channel: Channel) -> tuple[FakeBackend, Ready]:
            if isinstance(backend, Exception):
                raise backend
            return backend, ready(backend)

        with theirs:
            try:
                serve(Channel(theirs), load, HugePages(root=Path("/nonexistent")), disk_of)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                return


@pytest.fixture
def daemon():
    started = []

    def start(backend, beat_seconds=60.0, disk_of=None) -> Daemon:
        started.append(Daemon(backend, beat_seconds, disk_of))
        return started[-1]

    yield start
    for one in started:
        one.close()


def request(request_id: int, text: str) -> Submit:
    return Submit(request_id, (Segment(text),), Sampling(), max_tokens=50, max_seconds=60.0)


def has(kind: type, count: int = 1) -> Callable[[list], bool]:
    return lambda heard: sum(isinstance(message, kind) for message in heard) >= count


def test_requests_are_answered_one_after_the_other(daemon):
    engine = daemon(FakeBackend(lambda prompt: f"re {prompt}"))
    engine.send(request(1, "a"), request(2, "b"))
    heard = engine.hear(has(Done, 2))
    assert isinstance(heard[0], Ready)
    assert "".join(m.text for m in heard if getattr(m, "id", None) == 1 and hasattr(m, "text")) == "re a"
    assert "".join(m.text for m in heard if getattr(m, "id", None) == 2 and hasattr(m, "text")) == "re b"


def test_a_long_prompt_gives_signs_of_life_while_it_is_computed(daemon):
    engine = daemon(FakeBackend(lambda prompt: "ok", context=4096), beat_seconds=0.0)
    engine.send(request(1, "x" * 1600))
    heard = engine.hear(has(Done))
    answered = next(i for i, message in enumerate(heard) if isinstance(message, Tokens))
    assert sum(isinstance(message, Beat | StepStats) for message in heard[:answered]) >= 1600 // 16 - 1


def test_a_machine_that_stood_still_while_the_engine_rested_gives_no_answer_more_time():
    now = [0.0]

    class Still:
        def receive(self, _timeout: float) -> list:
            now[0] += 3600.0
            return []

    engine = Engine(FakeBackend(lambda prompt: "ok"), lambda: now[0], longest_step=20.0)
    engine.submit(request(1, "a"))
    _hear(engine, Still(), 0.5)
    assert engine.duty.slept == 20.0


def test_an_idle_engine_gives_signs_of_life(daemon):
    engine = daemon(FakeBackend(lambda prompt: "ok"), beat_seconds=0.01)
    engine.hear(has(Beat, 3))


def test_an_engine_that_has_had_nothing_to_do_gives_memory_back(daemon):
    backend = FakeBackend(lambda prompt: "ok")
    engine = daemon(backend, beat_seconds=0.01)
    engine.send(request(1, "abc"))
    engine.hear(has(Done))
    engine.heard.clear()
    engine.hear(has(Beat, 3))
    assert backend.cells.fitted[-1] == len("abc") + len("ok")


def test_an_abort_that_comes_while_the_engine_computes_is_heard(daemon):
    gate = threading.Event()
    engine = daemon(FakeBackend(lambda prompt: "x" * 40, gate=gate))
    engine.send(request(1, "a"))
    engine.send(Abort(1), request(2, "b"))
    gate.set()
    engine.hear(lambda heard: any(isinstance(message, Done) and message.id == 2 for message in heard))
    assert not any(isinstance(message, Done) and message.id == 1 for message in engine.heard)


@pytest.mark.parametrize(("kind", "code"), [(EngineError, "engine"), (UnservableError, "unservable")])
def test_a_model_that_cannot_be_loaded_is_told_and_whether_another_engine_may_do_better(daemon, kind, code):
    engine = daemon(kind("there is no such model"))
    (failed,) = engine.hear(has(Failed))
    assert (failed.id, failed.code, failed.detail) == (None, code, "there is no such model")
    engine.thread.join()


@pytest.mark.parametrize("error", [ValueError("bytes length not a multiple of item size"), MemoryError()])
def test_an_error_of_ours_while_the_engine_is_made_is_told_and_it_never_says_that_it_is_ready(daemon, caplog, error):
    def broken(*_: object) -> None:
        raise error

    engine = daemon(FakeBackend(lambda prompt: "ok"), disk_of=broken)
    (failed,) = engine.hear(has(Failed))
    assert (failed.id, failed.code) == (None, "engine")
    assert failed.detail == f"this is a bug in qwen-edge: {error!r}"
    assert "Traceback" in caplog.text
    engine.thread.join()


def test_an_error_of_ours_while_the_engine_works_is_told(daemon, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(Engine, "step", broken)
    engine = daemon(FakeBackend(lambda prompt: "ok"))
    heard = engine.hear(has(Failed))
    assert isinstance(heard[0], Ready)
    assert heard[-1].detail == "this is a bug in qwen-edge: KeyError('a mistake of ours')"
    engine.thread.join()


def test_the_engine_ends_after_a_decode_has_failed(daemon):
    backend = FakeBackend(lambda prompt: "ok")
    backend.failing = True
    engine = daemon(backend)
    engine.send(request(1, "a"))
    heard = engine.hear(has(Failed, 2))
    assert [message.id for message in heard if isinstance(message, Failed)] == [1, None]
    engine.thread.join()


def test_an_engine_in_which_a_compilation_does_not_end_is_replaced_when_it_is_idle(daemon, monkeypatch):
    monkeypatch.setattr(Engine, "hung", property(lambda self: not self.busy and self._turn > 0))
    engine = daemon(FakeBackend(lambda prompt: "ok"))
    engine.send(request(1, "a"))
    heard = engine.hear(lambda heard: any(isinstance(one, Failed) and one.id is None for one in heard))
    assert any(isinstance(one, Done) and one.id == 1 for one in heard)
    assert "only a new engine stops that" in heard[-1].detail
    engine.thread.join()


def test_the_engine_ends_when_told(daemon):
    engine = daemon(FakeBackend(lambda prompt: "ok"))
    engine.send(Stop())
    engine.thread.join()


def test_the_engine_ends_when_the_daemon_is_gone(daemon):
    engine = daemon(FakeBackend(lambda prompt: "ok"))
    engine.hear(has(Ready))
    engine.close()


@pytest.fixture
def card(tmp_path):
    """A folder with a conversation in it, and the disk that reads it when `may` is set."""
    may, begun = threading.Event(), threading.Event()

    def disk_of(_files: Files, backend: FakeBackend) -> DiskTier:
        def read(file: Path, room) -> memoryview:
            begun.set()
            may.wait()
            return read_cells(file, room)

        return DiskTier(tmp_path, backend.fingerprint, limit=1 << 20, per_day=1 << 30, cell=4, read=read)

    engine = Engine(FakeBackend(lambda prompt: "ok"), disk=disk_of(None, FakeBackend(None)))
    engine.submit(request(1, "x" * 400))
    while engine.busy:
        engine.step()
    engine.leave(10)
    yield SimpleNamespace(disk_of=disk_of, may=may, begun=begun)
    may.set()


def test_while_a_file_is_read_signs_of_life_are_given_and_others_are_answered(daemon, card, monkeypatch):
    monkeypatch.setattr(restoring, "_LEAST_PATIENCE", 1e6)
    engine = daemon(FakeBackend(lambda prompt: "ok"), beat_seconds=0.0, disk_of=card.disk_of)
    engine.send(request(2, "x" * 400))
    engine.hear(lambda _: card.begun.is_set())
    so_far = len(engine.heard)
    engine.hear(lambda heard: has(Beat, 5)(heard[so_far:]))
    engine.send(request(3, "hello"))
    heard = engine.hear(has(Done))
    assert next(one for one in heard if isinstance(one, Done)).id == 3
    card.may.set()
    heard = engine.hear(has(Done, 2))
    assert [one.cached_tokens for one in heard if isinstance(one, Done)] == [0, 399]


def test_a_folder_that_takes_long_to_open_is_waited_for_with_signs_of_life(daemon, card):
    may = threading.Event()

    def slowly(files: Files, backend: FakeBackend) -> DiskTier:
        may.wait()
        return card.disk_of(files, backend)

    card.may.set()
    engine = daemon(FakeBackend(lambda prompt: "ok"), beat_seconds=0.0, disk_of=slowly)
    engine.send(request(2, "x" * 400))
    engine.hear(has(Beat, 5))
    may.set()
    (done,) = [one for one in engine.hear(has(Done)) if isinstance(one, Done)]
    assert done.cached_tokens == 399


def test_a_folder_that_never_opens_is_done_without(daemon, monkeypatch, caplog):
    monkeypatch.setattr(main, "_OPENING", 0.05)
    never = threading.Event()
    engine = daemon(FakeBackend(lambda prompt: "ok"), disk_of=lambda *_: never.wait())
    engine.send(request(2, "hello"))
    engine.hear(has(Done))
    assert "has not answered" in caplog.text
    never.set()


def test_an_engine_whose_daemon_is_killed_writes_down_what_it_knows(daemon, tmp_path):
    def disk_of(_files: Files, backend: FakeBackend) -> DiskTier:
        return DiskTier(tmp_path, backend.fingerprint, limit=1 << 20, per_day=1 << 30, cell=4)

    engine = daemon(FakeBackend(lambda prompt: "word " * 100), disk_of=disk_of)
    engine.send(request(1, "a" * 100), request(2, "b" * 100))
    engine.hear(lambda heard: {one.id for one in heard if isinstance(one, Tokens)} == {1, 2})
    engine.close()
    disk = disk_of(None, FakeBackend(None))
    assert [disk.reach(list(text * 100)) for text in (b"a", b"b")] == [100, 100]
    disk.close()
