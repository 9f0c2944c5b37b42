"""When an idle engine is unloaded, by the settings and by what clients ask for."""

import math

import pytest

from qwen_edge.supervisor.idle_time import IdleTime


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_without_a_limit_an_engine_stays(clock):
    idle = IdleTime(math.inf, clock)
    clock.now += 1e9
    assert not idle.too_long()
    assert idle.left == math.inf


def test_the_time_counts_from_the_last_request(clock):
    idle = IdleTime(10.0, clock)
    clock.now += 9
    idle.used()
    clock.now += 9
    assert (idle.unused, idle.left, idle.too_long()) == (9, 1, False)
    clock.now += 1
    assert idle.too_long()


def test_a_client_may_ask_for_less_than_the_settings_and_not_for_more(clock):
    idle = IdleTime(10.0, clock)
    for wish, limit in ((3.0, 3.0), (0.0, 0.0), (10.5, 10.0), (math.inf, 10.0)):
        idle.keep(wish)
        assert idle.limit == limit


def test_a_client_that_asks_for_no_time_has_the_engine_unloaded_at_once(clock):
    idle = IdleTime(math.inf, clock)
    idle.used()
    idle.keep(0.0)
    assert idle.too_long()


def test_what_a_client_asks_for_does_not_hold_for_the_next_engine(clock):
    idle = IdleTime(math.inf, clock)
    idle.keep(0.0)
    idle.unloading()
    clock.now += 5
    idle.loaded()
    assert not idle.too_long()
    assert (idle.limit, idle.loaded_at) == (math.inf, 105.0)
