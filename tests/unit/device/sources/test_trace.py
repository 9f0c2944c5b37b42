"""What was recorded is played again, at the same pace or a quicker one."""

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.device.sources.trace import Trace, record
from qwen_edge.device.telemetry import Battery, Telemetry, TelemetryError, Trips
from qwen_edge.device.telemetry import Clock as Hertz
from tests.unit.device.sources.trees import Clock


def trace(folder, *times: float, **options) -> Trace:
    """Samples of those times whose power tells which they are."""
    path = folder / "trace.jsonl"
    with path.open("wb") as file:
        record((Telemetry(source="jtop", at=at, watts=float(i)) for i, at in enumerate(times)), file)
    return Trace(path, **options)


def test_a_sample_holds_until_the_next_one_and_tells_when_it_would_have_been_read(tmp_path):
    clock = Clock(50.0)
    source = trace(tmp_path, 1000.0, 1001.0, 1003.0, clock=clock)
    heard = []
    for clock.now in (50.0, 50.9, 51.0, 52.0, 53.5):
        sample = source.read()
        heard.append((sample.watts, sample.at))
        assert source.watts() is None, "nothing was recorded in between"
    assert heard == [(0, 50.0), (0, 50.0), (1, 51.0), (1, 51.0), (2, 53.0)]
    assert sample.source == "trace"


def test_ten_times_as_fast_is_a_tenth_of_the_time(tmp_path):
    clock = Clock(0.0)
    source = trace(tmp_path, 0.0, 10.0, 20.0, speed=10.0, clock=clock)
    clock.now = 1.5
    sample = source.read()
    assert (sample.watts, sample.at) == (1, pytest.approx(1.0))


def test_at_its_end_a_trace_begins_again(tmp_path):
    clock = Clock(0.0)
    source = trace(tmp_path, 5.0, 6.0, 7.0, clock=clock)  # the last one lasts a second, as the others
    clock.now = 301.5
    sample = source.read()
    assert (sample.watts, sample.at) == (1, pytest.approx(301.0))


def test_a_trace_of_one_sample_is_that_sample(tmp_path):
    clock = Clock(0.0)
    source = trace(tmp_path, 5.0, clock=clock)
    clock.now = 99.0
    assert (source.read().watts, source.read().at) == (0, 0.0)


gaps = st.lists(st.floats(0, 100), min_size=1, max_size=20)


@given(gaps=gaps, speed=st.floats(0.1, 100), later=st.floats(0, 10_000))
def test_a_sample_is_never_from_the_future(tmp_path_factory, gaps, speed, later):
    clock = Clock(0.0)
    times = [sum(gaps[:i]) for i in range(len(gaps) + 1)]
    source = trace(tmp_path_factory.mktemp("trace"), *times, speed=speed, clock=clock)
    clock.now = later
    assert source.read().at <= later + 1e-6


def test_everything_that_was_recorded_comes_back(tmp_path):
    whole = Telemetry(
        source="trace",
        at=3.0,
        temperatures={"tj": 50.5},
        tj=50.5,
        trips=Trips(99.0, 103.0, 104.5),
        rails={"VDD_SOC": 1.0},
        watts=6.0,
        clocks={"gpu": Hertz(3e8, 6e8)},
        throttled=("heat",),
        battery=Battery(0.5, True),
        missing=("tj: offline",),
    )
    path = tmp_path / "trace.jsonl"
    with path.open("wb") as file:
        record([whole], file)
    assert Trace(path, clock=Clock(3.0)).read() == whole


def test_samples_are_in_the_file_as_soon_as_they_are_recorded(tmp_path):
    path = tmp_path / "trace.jsonl"

    def samples():
        yield Telemetry(source="sysfs", at=1.0)
        assert path.read_bytes().count(b"\n") == 1
        yield Telemetry(source="sysfs", at=2.0)

    with path.open("wb") as file:
        record(samples(), file)
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("damage", [b'{"source": "jtop", "at": 1', b"\xff\n", b"\n", b'{"at": 1}\n', b"[]\n"])
def test_a_damaged_line_is_named_with_file_and_number(tmp_path, damage):
    path = tmp_path / "trace.jsonl"
    good = io.BytesIO()
    record([Telemetry(source="jtop", at=1.0)], good)
    path.write_bytes(good.getvalue() + damage)
    with pytest.raises(TelemetryError, match=r"trace\.jsonl, line 2: not a valid sample: .*"):
        Trace(path)


def test_time_that_runs_backwards_is_named(tmp_path):
    with pytest.raises(TelemetryError, match="line 3: the sample is older than the one before"):
        trace(tmp_path, 1.0, 2.0, 1.5)


def test_no_file_no_samples_and_no_speed_are_said(tmp_path):
    with pytest.raises(TelemetryError, match=r"trace .*none cannot be read: No such file"):
        Trace(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TelemetryError, match=r"trace .*pipe cannot be read: it is not a regular file\."):
        Trace(tmp_path / "pipe")
    with pytest.raises(TelemetryError, match="is empty"):
        trace(tmp_path)
    for speed in (0, -1, float("nan")):
        with pytest.raises(TelemetryError, match=r"set device\.trace_speed above 0"):
            trace(tmp_path, 1.0, speed=speed)
