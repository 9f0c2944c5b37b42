"""The engine process's loop over a socket pair: what it answers, when it speaks unasked, and when it ends."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen_edge.engine.huge_pages import HugePages
from qwen_edge.engine.loop import Engine
from qwen_edge.engine.main import Channel, _hear, serve
from qwen_edge.errors import EngineError, UnservableError
from qwen_edge.frames import encode, outbound_frames
from qwen_edge.messages import Abort, Beat, Done, Failed, Load, Ran, Ready, Sampling, Segment, Stop, Submit, Tokens
from tests.fakes import FakeBackend, ready


class Daemon:
    """The other end: sends messages, and reads until something has been said."""

    def __init__(self, backend: FakeBackend | Exception, beat_seconds: float) -> None:
        self._socket, theirs = socket.socketpair()
        self._frames = outbound_frames()
        self.heard: list = []
        self.thread = threading.Thread(target=self._serve, args=(theirs, backend))
        self.thread.start()
        self.send(Load("m", 512, 16, 1, 0, "f16", "off", beat_seconds))

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
    def _serve(theirs: socket.socket, backend: FakeBackend | Exception) -> None:
        def load(_load: Load, _channel: Channel) -> tuple[FakeBackend, Ready]:
            if isinstance(backend, Exception):
                raise backend
            return backend, ready(backend)

        with theirs:
            try:
                serve(Channel(theirs), load, HugePages(root=Path("/nonexistent")))
            except (EOFError, BrokenPipeError, ConnectionResetError):
                return


@pytest.fixture
def daemon():
    started = []

    def start(backend, beat_seconds=60.0) -> Daemon:
        started.append(Daemon(backend, beat_seconds))
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
    assert sum(isinstance(message, Beat | Ran) for message in heard[:answered]) >= 1600 // 16 - 1


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
    assert backend.fitted[-1] == len("abc") + len("ok")


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
def test_an_error_of_ours_while_the_engine_is_made_is_told_and_it_never_says_that_it_is_ready(
    daemon, monkeypatch, caplog, error
):
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("qwen_edge.engine.main.open_disk", broken)
    engine = daemon(FakeBackend(lambda prompt: "ok"))
    (failed,) = engine.hear(has(Failed))
    assert (failed.id, failed.code) == (None, "engine")
    assert failed.detail == f"this is a bug in qwen-edge: {error!r}"
    assert "Traceback" in caplog.text
    engine.thread.join()


def test_an_error_of_ours_while_the_engine_works_is_told(daemon, monkeypatch):
    def broken(*_: object) -> None:
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


def test_the_engine_ends_when_told(daemon):
    engine = daemon(FakeBackend(lambda prompt: "ok"))
    engine.send(Stop())
    engine.thread.join()


def test_the_engine_ends_when_the_daemon_is_gone(daemon):
    engine = daemon(FakeBackend(lambda prompt: "ok"))
    engine.hear(has(Ready))
    engine.close()
