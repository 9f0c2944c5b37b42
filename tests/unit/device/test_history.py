"""What is kept of the device's past, and that neither clocks nor disks can spoil it."""

import asyncio
import threading
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.config.schema import RememberConfig
from qwen_edge.device.history import LONGEST, RECENT, History, combined, kept_history
from qwen_edge.device.history_file import HistoryFile, Reading, Sample

NOON = 1_764_500_000.0


class Device:
    """A device that is read once a second; its clocks are the test's."""

    def __init__(self, folder: Path | None = None) -> None:
        self.now, self.ahead = 1000.0, NOON
        self.folder = folder
        self.history = self.started()

    def started(self) -> History:
        return History(self.folder, memory=lambda: 5, clock=lambda: self.now, wall=lambda: self.now + self.ahead)

    def runs(self, seconds: float, step: float = 1.0, **values) -> None:
        """The disk is quick: what is written is written before the next second."""
        until = self.now + seconds
        while self.now < until:
            self.now += step
            self.history.add(Reading(**values))
            self.written()

    def written(self) -> None:
        if self.history._writing:
            self.history._writing.exception()

    def last(self, seconds: float) -> list[Sample]:
        return asyncio.run(self.history.of_last(seconds))[1]

    def restarts(self, off: float = 10.0) -> None:
        asyncio.run(self.history.close())
        self.now, self.ahead = 5.0, self.ahead + self.now - 5.0 + off  # a reboot, which resets the clock since the boot
        self.history = self.started()


def gaps(samples: list[Sample]) -> list[float]:
    """Seconds from each sample to the next."""
    return [later.at - one.at for one, later in pairwise(samples)]


def test_of_the_last_minutes_there_is_a_sample_for_every_five_seconds():
    device = Device()
    device.runs(3600, celsius=50.0, watts=5.0, duty=1.0, hertz=1e9, tokens_per_second=10.0, pending=1)
    every, samples = asyncio.run(device.history.of_last(RECENT))
    assert every == 5
    assert 178 <= len(samples) <= 180
    assert set(gaps(samples)) == {5.0}
    assert samples[-1] == Sample(
        at=samples[-1].at, celsius=50.0, watts=5.0, duty=1.0, hertz=1e9, tokens_per_second=10.0, pending=1, memory=5
    )
    assert [one.at for one in device.last(60)] == [one.at for one in samples[-12:]]


def test_a_longer_time_comes_by_the_minute_from_files_and_memory_without_a_gap(tmp_path):
    device = Device(tmp_path)
    device.runs(3 * 3600)
    every, samples = asyncio.run(device.history.of_last(LONGEST))
    assert every == 60
    assert len(samples) >= 178
    assert set(gaps(samples)) == {60.0}


def test_of_several_readings_heat_queue_and_memory_are_the_highest_and_the_rest_the_mean():
    readings = [
        Reading(celsius=50.0, target=80.0, watts=4.0, duty=1.0, hertz=1e9, tokens_per_second=10.0, pending=2, memory=7),
        Reading(celsius=60.0, target=85.0, watts=6.0, duty=0.5, tokens_per_second=0.0, memory=6),
        Reading(watts=None, duty=0.0, pending=1),
    ]
    assert combined(readings) == Reading(
        celsius=60.0, target=None, watts=5.0, duty=0.5, hertz=1e9, tokens_per_second=3.33, pending=2, memory=7
    )


def test_it_is_written_every_ten_minutes_and_at_the_end_and_no_more(tmp_path, monkeypatch):
    writes = list[int]()
    append = HistoryFile.append

    def counted(self, samples):
        writes.append(len(samples))
        append(self, samples)

    monkeypatch.setattr(HistoryFile, "append", counted)
    device = Device(tmp_path)
    device.runs(599)
    assert writes == []
    device.runs(3600 - 599)
    assert 5 <= len(writes) <= 6
    asyncio.run(device.history.close())
    assert sum(writes) in (59, 60), "whole minutes, each once"
    assert len(writes) <= 7


def test_a_daemon_that_ends_within_a_minute_writes_nothing(tmp_path):
    device = Device(tmp_path / "history")
    device.runs(15)
    asyncio.run(device.history.close())
    assert not (tmp_path / "history").exists()


def test_a_reboot_keeps_the_days_before(tmp_path):
    device = Device(tmp_path)
    device.runs(1800, celsius=40.0)
    device.restarts(off=600.0)
    device.runs(1800, celsius=60.0)
    samples = device.last(LONGEST)
    assert 56 <= len(samples) <= 60
    assert [one.celsius for one in samples] == sorted(one.celsius for one in samples)
    assert sum(gap > 60 for gap in gaps(samples)) == 1


@pytest.mark.parametrize("step", [56 * 365 * 86400.0, 3600.0, -3600.0])
def test_a_clock_that_is_set_moves_what_is_in_memory_along(step):
    device = Device()
    device.runs(300)
    device.ahead += step
    device.runs(300)
    samples = device.last(RECENT)
    assert len(samples) >= 118
    assert set(gaps(samples)) == {5.0}


def test_a_board_that_boots_in_the_past_loses_nothing_of_its_files(tmp_path):
    device = Device(tmp_path)
    device.runs(1800)
    device.restarts()
    right, device.ahead = device.ahead, 0.0  # 1970, until the network is there
    device.runs(1800)
    assert all(one.at < 10_000 for one in device.last(LONGEST))
    device.ahead = right
    assert len(device.last(LONGEST)) >= 29


def test_time_in_which_the_device_slept_has_no_samples():
    device = Device()
    device.runs(60)
    device.now += 300
    device.runs(60)
    found = gaps(device.last(RECENT))
    assert sum(gap > 5 for gap in found) == 1
    assert max(found) >= 300


def test_a_folder_that_cannot_be_written_is_said_once_and_all_stays_in_memory(tmp_path, caplog):
    (tmp_path / "file").touch()
    device = Device(tmp_path / "file" / "history")
    device.runs(3 * 3600)
    assert len(device.last(LONGEST)) >= 178
    assert len(device.last(RECENT)) >= 178
    asyncio.run(device.history.close())
    assert sum("kept in memory" in line for line in caplog.messages) == 1


def test_a_disk_that_is_full_for_a_while_gets_what_it_missed(tmp_path, monkeypatch):
    device = Device(tmp_path)
    append = HistoryFile.append

    def full(self, samples):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HistoryFile, "append", full)
    device.runs(3600)
    monkeypatch.setattr(HistoryFile, "append", append)
    device.runs(1200)
    assert len(HistoryFile(tmp_path).read()) >= 68
    assert len(device.last(LONGEST)) >= 78


async def test_a_disk_that_hangs_holds_up_neither_questions_nor_the_end(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("qwen_edge.device.history._PATIENCE", 0.05)
    goes_on = threading.Event()
    monkeypatch.setattr(HistoryFile, "append", lambda self, samples: goes_on.wait(60))
    device = Device(tmp_path)
    device.written = lambda: None
    device.runs(1800)
    assert device.history._writing
    answers = await asyncio.gather(*(device.history.of_last(LONGEST) for _ in range(3)))
    assert all(len(samples) >= 28 for _, samples in answers)
    assert device.history._thread._work_queue.qsize() <= 1, "many questions are one reading"
    await device.history.close()
    goes_on.set()
    assert sum("does not answer" in line for line in caplog.messages) == 1


def test_it_is_kept_on_disk_where_conversations_are(tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert kept_history(RememberConfig(), lambda: None)._file
    assert kept_history(RememberConfig(where="memory"), lambda: None)._file is None
    assert kept_history(RememberConfig(where="off"), lambda: None)._file is None


EVENTS = st.lists(
    st.tuples(st.just("runs"), st.integers(1, 1500))
    | st.tuples(st.just("step"), st.floats(-1e9, 1e9))
    | st.tuples(st.just("restarts"), st.floats(0, 1e6))
    | st.tuples(st.just("sleeps"), st.floats(0, 1e6))
    | st.tuples(st.just("torn"), st.integers(0, 200))
    | st.tuples(st.just("disk"), st.booleans()),
    max_size=8,
)


@given(events=EVENTS, seconds=st.floats(1, LONGEST))
def test_whatever_happens_samples_are_sorted_within_the_time_and_complete_since_the_last_start(
    events, seconds, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("history")
    device = Device(folder / "history")
    for kind, value in [*events, ("runs", 200)]:
        if kind == "runs":
            device.runs(value, step=7.0, celsius=50.0)
        elif kind == "step":
            device.ahead += value
        elif kind == "restarts":
            device.restarts(value)
        elif kind == "sleeps":
            device.now += value
        elif kind == "torn":
            for file in folder.glob("history/*"):
                file.write_bytes(file.read_bytes()[: -value or None])
        elif value and folder.is_dir():
            folder.rename(folder.with_suffix(".away"))
            folder.touch()
        elif folder.is_file():
            folder.unlink()
            folder.with_suffix(".away").rename(folder)
    for asked in (seconds, RECENT):
        samples = device.last(asked)
        times, now = [one.at for one in samples], device.now + device.ahead
        assert times == sorted(set(times))
        assert all(now - asked <= at <= now + 60 for at in times)
        assert all(msgspec.convert(msgspec.to_builtins(one), Sample) == one for one in samples)
    assert len(samples) >= 200 / 7 - 2
    asyncio.run(device.history.close())
