"""What somebody wants kept goes last, is written down at once, and is free again when its time is over."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from qwen_edge.kv.folder import Folder
from qwen_edge.kv.host_tier import Copy, HostTier
from qwen_edge.kv.note import Note
from qwen_edge.kv.pins import Pins
from tests.unit.kv.test_disk_tier import disk, files, write
from tests.unit.kv.test_manager import Home

FIRST, SECOND, THIRD = list(range(40)), list(range(100, 140)), list(range(200, 240))


@contextmanager
def kept(folder: Path, now: float = 0.0) -> Iterator[Pins]:
    """The pins of a folder, which nobody else uses meanwhile."""
    place = Folder(folder)
    with ThreadPoolExecutor(1) as writer:
        yield Pins(Note(place, "pins.json", writer), lambda: now)
    place.close()


def test_a_pin_ends_with_its_time():
    now = [0.0]
    pins = Pins(None, lambda: now[0])
    pins.pin(FIRST, 10)
    assert pins.holds(FIRST[:20])
    assert not pins.holds([*FIRST, 1])
    assert not pins.holds([])
    now[0] = 11
    assert not pins.holds(FIRST)


def test_pins_outlive_the_engine_and_can_be_ended(tmp_path):
    with kept(tmp_path) as pins:
        pins.pin(FIRST, 10)
    with kept(tmp_path) as pins:
        assert pins.holds(FIRST)
        pins.pin(FIRST, 0)
        assert pins.written(10)
    with kept(tmp_path) as pins:
        assert not pins.holds(FIRST)


def test_a_pin_that_is_made_just_before_the_engine_goes_is_written_down(tmp_path):
    home, may_write = Home(size=400, disk=disk(tmp_path)), threading.Event()
    home.disk._writer.submit(may_write.wait)  # a slow disk
    home.manager.pins.pin(FIRST, 1000)
    threading.Timer(0.05, may_write.set).start()
    home.manager.leave(10, time.monotonic)
    with kept(tmp_path) as pins:
        assert pins.holds(FIRST)


def test_of_too_many_pins_those_that_end_first_go():
    pins = Pins(None, lambda: 0.0)
    for number in range(100):
        pins.pin([number] * 30, 1 + number)
    assert not pins.holds([0] * 30)
    assert pins.holds([99] * 30)


def test_a_pinned_copy_is_the_last_to_go():
    pins = Pins(None, lambda: 0.0)
    pins.pin(FIRST, 10)
    stash = HostTier(80, pins)
    for tokens in (FIRST, SECOND, THIRD):
        stash.put(Copy(tokens, 0, tokens, hits=1 + len(stash.copies)))
    assert [copy.tokens for copy in stash.copies] == [FIRST, THIRD]


def test_pinned_cells_are_the_last_to_go():
    home = Home(size=100, host_tier_cells=0)
    home.remember(FIRST)
    home.manager.pins.pin(FIRST, 10)
    for tokens in (SECOND, THIRD, SECOND, THIRD):
        home.remember(tokens)
    assert home.known(FIRST) == 40
    home.check()


def test_what_is_pinned_is_written_though_only_one_has_asked_for_it(tmp_path: Path):
    home = Home(size=400, disk=disk(tmp_path))
    home.remember(FIRST)
    write(home)
    assert files(tmp_path) == []
    home.manager.pins.pin(FIRST, 10)
    home.manager.review()
    write(home)
    assert len(files(tmp_path)) == 1
    home.disk.close()
