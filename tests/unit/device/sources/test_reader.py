"""A thread reads, and nobody else ever waits for a sensor."""

import logging
import queue
import threading
import time
from collections.abc import Callable

import pytest
from msgspec import structs

from qwen_edge.device.sources.reader import Power, Reader, SourceSearch
from qwen_edge.device.telemetry import Telemetry, TelemetryError


class Scripted:
    """A source that does the next thing each time it is read; the last one for ever."""

    name = "scripted"

    def __init__(self, *steps: Callable[[], Telemetry], watts: Callable[[], float | None] = lambda: None) -> None:
        self.steps, self.watts = list(steps), watts
        self.closed = threading.Event()

    def read(self) -> Telemetry:
        return (self.steps.pop(0) if len(self.steps) > 1 else self.steps[0])()

    def close(self) -> None:
        self.closed.set()


def good() -> Telemetry:
    return Telemetry(source="scripted", at=time.monotonic())


def failing(error: Exception) -> Callable[[], Telemetry]:
    def fail() -> Telemetry:
        raise error

    return fail


@pytest.fixture
def reading():
    """Starts a reader of a source and gives it and the queue of what it hears."""
    readers = []

    def start(source: Scripted, interval: float = 0.005, **options) -> tuple[Reader, queue.Queue]:
        heard: queue.Queue = queue.Queue()
        readers.append(Reader(lambda: (source, "a script"), heard.put, interval=interval, **options))
        readers[-1].start()
        assert heard.get(timeout=10) == SourceSearch("a script", True)
        return readers[-1], heard

    yield start
    for reader in readers:
        reader.stop()


def next_of(kind: type, heard: queue.Queue):
    """The next that is one of these."""
    while not isinstance(found := heard.get(timeout=10), kind):
        pass
    return found


def test_every_sample_is_heard_in_its_order(reading):
    _, heard = reading(Scripted(good))
    first, second = heard.get(timeout=10), heard.get(timeout=10)
    assert first.at < second.at


def test_a_source_that_raises_is_asked_again(reading):
    _, heard = reading(Scripted(failing(TelemetryError("No jtop.")), good))
    assert str(heard.get(timeout=10)) == "No jtop."
    assert heard.get(timeout=10).source == "scripted"


def test_a_bug_in_a_source_is_logged_whole_once_and_is_asked_again(reading, caplog):
    bug = failing(KeyError("tj"))
    with caplog.at_level(logging.ERROR):
        _, heard = reading(Scripted(bug, bug, good, bug))
        errors = [next_of(TelemetryError, heard) for _ in range(3)]
    assert "KeyError('tj')" in str(errors[0])
    (logged,) = caplog.records
    assert logged.exc_info[0] is KeyError


def test_while_a_sensor_hangs_nobody_waits(reading):
    hung, free = threading.Event(), threading.Event()

    def hang() -> Telemetry:
        hung.set()
        free.wait(60)
        return good()

    source = Scripted(good, hang)
    reader, heard = reading(source)
    assert heard.get(timeout=10)
    assert hung.wait(10)
    assert heard.empty()
    began = time.monotonic()
    reader.stop()
    assert time.monotonic() - began < 5, "a moment, on a machine with other things to do"
    assert source.closed.is_set()
    free.set()
    reader._thread.join(10)
    assert heard.empty(), "who is stopped says nothing any more"


def test_stop_returns_even_if_the_source_cannot_be_closed(reading):
    source, free = Scripted(good), threading.Event()
    source.close = lambda: free.wait(60)
    reader, _ = reading(source)
    reader.stop()
    free.set()


def test_a_source_that_is_not_there_yet_is_looked_for_again():
    found: list[tuple[Scripted | None, str]] = [(None, "no driver"), (None, "no driver"), (Scripted(good), "a driver")]
    heard: queue.Queue = queue.Queue()
    reader = Reader(lambda: found.pop(0), heard.put, interval=0.005, search_interval=0.005)
    reader.start()
    sought = [heard.get(timeout=10) for _ in range(3)]
    assert [one.found for one in sought] == [False, False, True]
    assert isinstance(heard.get(timeout=10), Telemetry)
    reader.stop()


def test_a_sensor_that_hangs_while_it_is_looked_for_holds_up_nobody():
    looking, free = threading.Event(), threading.Event()

    def find() -> tuple[None, str]:
        looking.set()
        free.wait(60)
        return None, "nothing"

    heard: queue.Queue = queue.Queue()
    reader = Reader(find, heard.put)
    reader.start()
    assert looking.wait(10)
    began = time.monotonic()
    reader.stop()
    assert time.monotonic() - began < 5
    free.set()
    reader._thread.join(10)
    assert heard.empty()


def test_a_bug_in_looking_for_a_source_is_told(caplog):
    heard: queue.Queue = queue.Queue()
    reader = Reader(failing(ZeroDivisionError()), heard.put, search_interval=0.005)
    reader.start()
    assert isinstance(heard.get(timeout=10), TelemetryError)
    reader.stop()


def test_power_between_two_samples_is_heard_while_something_is_computed(reading):
    reader, heard = reading(Scripted(good, watts=lambda: 7.5), interval=60.0, power_interval=0.005)
    assert isinstance(heard.get(timeout=10), Telemetry)
    reader.set_busy(True)  # is heard at once, not after the interval
    early, late = heard.get(timeout=10), heard.get(timeout=10)
    assert early.watts == late.watts == 7.5
    assert early.at < late.at
    reader.set_busy(False)
    with pytest.raises(queue.Empty):  # after what was under way
        while True:
            heard.get(timeout=0.1)


def test_power_between_two_samples_is_a_mean_where_theirs_is(reading):
    reader, heard = reading(
        Scripted(lambda: structs.replace(good(), mean=True), watts=lambda: 7.5), interval=60.0, power_interval=0.005
    )
    reader.set_busy(True)
    assert next_of(Power, heard).mean


@pytest.mark.parametrize("watts", [lambda: None, failing(TelemetryError("gone"))])
def test_a_source_without_quick_power_is_only_sampled(reading, watts):
    reader, heard = reading(Scripted(good, watts=watts), power_interval=0.001)
    reader.set_busy(True)
    for _ in range(5):
        assert isinstance(heard.get(timeout=10), Telemetry)


def test_a_bug_in_quick_power_does_not_end_the_samples(reading, caplog):
    reader, heard = reading(Scripted(good, watts=failing(ZeroDivisionError())), power_interval=0.001)
    reader.set_busy(True)
    for _ in range(5):
        assert not isinstance(heard.get(timeout=10), Power)
    while not caplog.records:
        heard.get(timeout=10)
    assert len(caplog.records) == 1
