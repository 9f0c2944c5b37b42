"""What follows from how engines have died."""

import pytest

from qwen_edge.supervisor.deaths import Deaths


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def deaths(clock):
    return Deaths(clock)


def die(deaths: Deaths, clock: Clock, *, after: float, answered: bool | None = None) -> float:
    deaths.born()
    deaths.loaded()
    if answered is not None:
        (deaths.answered if answered else deaths.failed)()
    clock.now += after
    return deaths.died("a fault")


def test_pauses_grow_while_engines_die_young(deaths, clock):
    assert [die(deaths, clock, after=1.0) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert deaths.total == deaths.in_a_row == 8
    assert deaths.pause == 30
    clock.now += 31
    assert deaths.pause == 0


def test_an_engine_that_was_of_use_ends_the_row(deaths, clock):
    for _ in range(3):
        die(deaths, clock, after=1.0)
    assert die(deaths, clock, after=61.0, answered=True) == 0
    assert (deaths.in_a_row, deaths.total) == (1, 4)


def test_engines_that_lose_every_request_are_a_row_however_seldom_one_comes(deaths, clock):
    assert [die(deaths, clock, after=100.0, answered=False) for _ in range(3)] == [0, 1, 2]


def test_one_lost_request_after_many_answers_is_no_row(deaths, clock):
    for _ in range(3):
        deaths.born()
        deaths.loaded()
        deaths.answered()
        deaths.failed()
        clock.now += 100
        assert deaths.died("a fault") == 0


def test_an_engine_that_dies_while_it_loads_was_of_no_use_however_long_that_took(deaths, clock):
    pauses = []
    for _ in range(3):
        deaths.born()
        clock.now += 100
        pauses.append(deaths.died("a fault"))
    assert pauses == [0, 1, 2]
    deaths.born()
    assert deaths.doubtful


def test_the_engine_after_two_that_could_not_answer_is_doubted_until_it_has_answered(deaths, clock):
    die(deaths, clock, after=1.0, answered=False)
    deaths.born()
    deaths.loaded()
    assert not deaths.doubtful
    deaths.failed()
    deaths.died("a fault")
    deaths.born()
    deaths.loaded()
    assert deaths.doubtful
    deaths.answered()
    assert not deaths.doubtful


def test_or_has_lived_for_a_minute(deaths, clock):
    for _ in range(2):
        die(deaths, clock, after=1.0, answered=False)
    deaths.born()
    clock.now += 61
    assert not deaths.doubtful


@pytest.mark.parametrize("answered", [None, True])
def test_engines_that_were_killed_without_having_failed_anybody_cast_no_doubt(deaths, clock, answered):
    for _ in range(3):
        die(deaths, clock, after=1.0, answered=answered)
    deaths.born()
    deaths.loaded()
    assert not deaths.doubtful


def test_who_asks_in_a_pause_hears_why_and_when_to_come_back(deaths, clock):
    for _ in range(3):
        die(deaths, clock, after=1.0)
    refusal = deaths.refusal()
    assert (refusal.kind, refusal.retry_after) == ("unavailable", 4)
    assert (
        "died 3 times without a minute of service in between (the last time: a fault). It is started again in 2 s"
        in str(refusal)
    )
