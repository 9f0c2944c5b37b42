"""Reading files is a phase of a request beside the others' decoding; it costs nobody else a step, and ends in time."""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen_edge.engine.loop import Engine
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.file import read_cells
from qwen_edge.protocol.messages import Abort, Done, Tokens
from tests.fakes import FakeBackend
from tests.unit.engine.test_loop import end_of, run, submit, text_of

LONG = "".join(f"lamp {number} is on; " for number in range(60))  # 16 tokens and more each


class Card:
    """A disk whose reads go on one at a time, when they may."""

    def __init__(self, *, open_: bool = False) -> None:
        self.may_read = threading.Semaphore(1_000_000 if open_ else 0)
        self.begun = threading.Semaphore(0)
        self.error: Exception | None = None
        self.reads = 0

    def __call__(self, file: Path, room) -> memoryview:
        self.reads += 1
        self.begun.release()
        self.may_read.acquire()
        if self.error:
            raise self.error
        return read_cells(file, room)


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def disk() -> Iterator[Callable[..., DiskTier]]:
    """Makes disks, and closes them after the test."""
    disks = list[DiskTier]()

    def make(folder: Path, card=read_cells, **options) -> DiskTier:
        disks.append(DiskTier(folder, "fake", limit=1 << 24, per_day=1 << 30, cell=4, read=card, **options))
        return disks[-1]

    yield make
    for one in disks:
        one.close()


def echo(prompt: str) -> str:
    return f"{len(prompt)} letters, and then some more words to be said!"


@pytest.fixture
def written(tmp_path, disk):
    """A folder with a long conversation of an engine that has gone: five files."""
    engine = Engine(FakeBackend(echo), disk=disk(tmp_path))
    engine.submit(submit(1, LONG))
    run(engine)
    engine.leave(10)
    assert len(list(tmp_path.glob("*.kv"))) == -(-len(LONG) // 256)
    return tmp_path


def test_a_conversation_comes_back_whole(written, disk):
    engine = Engine(FakeBackend(echo), disk=disk(written))
    engine.submit(submit(1, LONG))
    events = run(engine)
    assert end_of(events, 1).cached_tokens == len(LONG) - 1
    assert text_of(events, 1) == echo(LONG)


def test_admission_reads_nothing_and_others_decode_between_two_stretches(written, disk):
    card = Card()
    engine = Engine(FakeBackend(echo), disk=disk(written, card))
    engine.submit(submit(1, "who is there", max_tokens=1000))
    while not any(isinstance(event, Tokens) for event in engine.step()):
        pass
    engine.submit(submit(2, LONG))
    engine.admit()
    assert card.reads == 0
    stretches = -(-len(LONG) // 256)
    for number in range(stretches):
        said = [engine.step() for _ in range(3)]
        assert card.begun.acquire(timeout=10), "the read has begun"
        assert all(any(getattr(event, "id", 0) == 1 for event in events) for events in said), "each step is the other's"
        assert card.reads == number + 1, "no more than one stretch at a time"
        held = engine._places.placed[1].computed
        card.may_read.release()
        for _ in range(1000):
            if engine._places.placed[1].computed > held:
                break
            engine._restorer.wait(engine._places.placed)
            engine._restorer.step(engine._places.placed)
        assert 0 < engine._places.placed[1].computed - held <= 256
    assert end_of(run(engine), 2).cached_tokens == len(LONG) - 1


def test_a_read_that_takes_longer_than_computing_is_given_up_and_the_rest_is_computed(written, disk, caplog):
    card, clock = Card(), Clock()
    engine = Engine(FakeBackend(echo), clock, disk=disk(written, card))
    engine.submit(submit(1, LONG))
    engine.step()
    assert card.begun.acquire(timeout=10)
    assert [*engine.step()] == []
    clock.now += 30
    events = run(engine)
    assert text_of(events, 1) == echo(LONG)
    assert end_of(events, 1).cached_tokens == 0
    assert "the disk is slow" in caplog.text
    card.may_read.release(100)


def test_while_a_read_hangs_the_next_request_does_not_wait_for_the_disk_at_all(written, disk, caplog):
    card, clock = Card(), Clock()
    engine = Engine(FakeBackend(echo, context=8192), clock, disk=disk(written, card, clock=clock))
    for number in (1, 2):
        engine.submit(submit(number, LONG, max_seconds=1e6))
        engine.step()
        clock.now += 1000
        assert text_of(run(engine), number) == echo(LONG)
        engine._kv_cache.drop_if(lambda _: True)
    assert card.reads == 1
    assert caplog.text.count("the disk is slow") == 1
    card.may_read.release(100)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ENOENT])
def test_a_read_that_fails_is_a_warning_and_the_rest_is_computed(written, disk, caplog, number):
    card = Card(open_=True)
    card.error = OSError(number, "the card says no")
    engine = Engine(FakeBackend(echo), disk=disk(written, card))
    for request in (1, 2):
        engine.submit(submit(request, f"{LONG}{request}"))
        events = run(engine)
        assert text_of(events, request) == echo(f"{LONG}{request}")
    assert caplog.text.count("the card says no") == 1
    assert len(list(written.glob("*.kv"))) == -(-len(LONG) // 256), "only what is damaged is deleted"


def test_a_request_that_is_cancelled_while_it_is_read_frees_all(written, disk):
    card = Card()
    backend = FakeBackend(echo, parallel=1)
    engine = Engine(backend, disk=disk(written, card))
    engine.submit(submit(1, LONG))
    engine.step()
    assert card.begun.acquire(timeout=10)
    engine.abort(Abort(1))
    assert not engine.busy
    assert (engine.open_cells, backend.cells.used, backend.open_samplers) == (0, 0, 0)
    engine.submit(submit(2, "short"))
    assert text_of(run(engine), 2) == echo("short")
    card.may_read.release(100)
    engine.submit(submit(3, LONG))
    assert end_of(run(engine), 3).cached_tokens == len(LONG) - 1


def test_a_request_whose_time_is_over_while_it_is_read_ends(written, disk):
    card, clock = Card(), Clock()
    engine = Engine(FakeBackend(echo), clock, disk=disk(written, card))
    engine.submit(submit(1, LONG, max_seconds=0.1))
    engine.step()
    clock.now += 0.2
    (done,) = [event for event in engine.step() if isinstance(event, Done)]
    assert (done.reason, done.completion_tokens) == ("length", 0)
    card.may_read.release(100)


def test_two_with_the_same_prompt_read_every_file_once(written, disk):
    card = Card(open_=True)
    engine = Engine(FakeBackend(echo), disk=disk(written, card))
    for number in (1, 2):
        engine.submit(submit(number, LONG))
    events = run(engine)
    assert [end_of(events, number).cached_tokens for number in (1, 2)] == [len(LONG) - 1] * 2
    assert card.reads == -(-len(LONG) // 256)


def test_an_urgent_request_takes_the_place_of_one_that_is_read_and_gives_it_back(written, disk):
    card = Card()
    engine = Engine(FakeBackend(echo, parallel=1), disk=disk(written, card))
    engine.submit(submit(1, LONG, priority="idle"))
    engine.step()
    assert card.begun.acquire(timeout=10)
    engine.submit(submit(2, "now!"))
    events = []
    while not any(isinstance(event, Done) for event in events):
        events += engine.step()
    card.may_read.release(100)
    events += run(engine)
    assert text_of(events, 2) == echo("now!")
    assert end_of(events, 1).cached_tokens == len(LONG) - 1


def test_who_waits_for_anothers_read_does_not_spin(written, disk):
    card = Card()
    engine = Engine(FakeBackend(echo, parallel=1), disk=disk(written, card))
    engine.submit(submit(1, LONG))
    engine.step()
    assert card.begun.acquire(timeout=10)
    engine.abort(Abort(1))
    engine.submit(submit(2, LONG))
    engine.step()
    assert not engine._places.placed[0].phase.restore.waiting.done
    card.may_read.release(100)
    assert end_of(run(engine), 2).cached_tokens == len(LONG) - 1
