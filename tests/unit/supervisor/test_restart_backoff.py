"""What follows from how engines have died."""

import pytest

from qwen_edge.supervisor.restart_backoff import RestartBackoff


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def backoff(clock):
    return RestartBackoff(clock)


def die(backoff: RestartBackoff, clock: Clock, *, after: float, answered: bool | None = None) -> float:
    backoff.engine_started()
    backoff.engine_loaded()
    if answered is not None:
        (backoff.request_answered if answered else backoff.request_failed)()
    clock.now += after
    return backoff.engine_died("a fault")


def test_pauses_grow_while_engines_die_young(backoff, clock):
    assert [die(backoff, clock, after=1.0) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.total == backoff.in_a_row == 8
    assert backoff.pause == 30
    clock.now += 31
    assert backoff.pause == 0


def test_an_engine_that_was_of_use_ends_the_row(backoff, clock):
    for _ in range(3):
        die(backoff, clock, after=1.0)
    assert die(backoff, clock, after=61.0, answered=True) == 0
    assert (backoff.in_a_row, backoff.total) == (1, 4)


def test_engines_that_lose_every_request_are_a_row_however_seldom_one_comes(backoff, clock):
    assert [die(backoff, clock, after=100.0, answered=False) for _ in range(3)] == [0, 1, 2]


def test_one_lost_request_after_many_answers_is_no_row(backoff, clock):
    for _ in range(3):
        backoff.engine_started()
        backoff.engine_loaded()
        backoff.request_answered()
        backoff.request_failed()
        clock.now += 100
        assert backoff.engine_died("a fault") == 0


def test_an_engine_that_dies_while_it_loads_was_of_no_use_however_long_that_took(backoff, clock):
    pauses = []
    for _ in range(3):
        backoff.engine_started()
        clock.now += 100
        pauses.append(backoff.engine_died("a fault"))
    assert pauses == [0, 1, 2]
    backoff.engine_started()
    assert backoff.doubtful


def test_the_engine_after_two_that_could_not_answer_is_doubted_until_it_has_answered(backoff, clock):
    die(backoff, clock, after=1.0, answered=False)
    backoff.engine_started()
    backoff.engine_loaded()
    assert not backoff.doubtful
    backoff.request_failed()
    backoff.engine_died("a fault")
    backoff.engine_started()
    backoff.engine_loaded()
    assert backoff.doubtful
    backoff.request_answered()
    assert not backoff.doubtful


def test_or_has_lived_for_a_minute(backoff, clock):
    for _ in range(2):
        die(backoff, clock, after=1.0, answered=False)
    backoff.engine_started()
    clock.now += 61
    assert not backoff.doubtful


@pytest.mark.parametrize("answered", [None, True])
def test_engines_that_were_killed_without_having_failed_anybody_cast_no_doubt(backoff, clock, answered):
    for _ in range(3):
        die(backoff, clock, after=1.0, answered=answered)
    backoff.engine_started()
    backoff.engine_loaded()
    assert not backoff.doubtful


def test_who_asks_in_a_pause_hears_why_and_when_to_come_back(backoff, clock):
    for _ in range(3):
        die(backoff, clock, after=1.0)
    refusal = backoff.refusal()
    assert (refusal.kind, refusal.retry_after) == ("unavailable", 4)
    assert (
        "died 3 times without a minute of service in between (the last time: a fault). "
        "The server starts it again in 2 s" in str(refusal)
    )
