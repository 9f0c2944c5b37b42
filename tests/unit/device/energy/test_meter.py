"""What was really computed, told without losing any of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.device.energy.meter import Meter
from qwen_edge.protocol.messages import Share, StepStats


def step(began: float, seconds: float, rested: float = 0.0, chosen: int = 1, *requests: int) -> StepStats:
    return StepStats(began, seconds, rested, chosen, tuple(Share(request, 0, 1) for request in requests or (1,)))


@given(st.lists(st.tuples(st.floats(0.001, 3.0), st.floats(0.0, 3.0)), min_size=1, max_size=50))
def test_every_second_computed_is_told_once_and_none_is_told_before_it_was(steps):
    meter, now, computed, told, asked = Meter(0.0), 0.0, 0.0, 0.0, 0.0
    for seconds, rest in steps:
        meter.add_step(step(now, seconds))
        now, computed = now + seconds + rest, computed + seconds
        while asked + 1.0 <= now:
            asked += 1.0
            work = meter.take_work(asked, wanted=True)
            assert 0.0 <= work.ran <= 1.0
            told += work.ran
            assert told <= computed + 1e-9
    for _ in range(200):
        asked += 1.0
        told += meter.take_work(asked, wanted=False).ran
    assert told == pytest.approx(computed)


def test_what_was_allowed_is_told_beside_what_was_computed():
    meter = Meter(0.0)
    assert meter.activity(0.0).ran is None
    meter.set_duty(0.4, 0.0)
    for number in range(1, 101):
        meter.add_step(step(number * 0.1, 0.04, 0.06))
    pace = meter.activity(10.0)
    assert pace.asked == pytest.approx(0.4)
    assert pace.ran == pytest.approx(0.4)
    assert pace.tokens_per_second == pytest.approx(10.0)
    assert meter.activity(100.0).ran is None, "that was long ago"


def test_a_pause_counts_as_what_it_was_and_only_in_the_window():
    meter = Meter(0.0)
    meter.set_duty(0.0, 10.0)
    meter.set_duty(0.5, 70.0)
    meter.add_step(step(70.0, 0.1, 60.0))
    for number in range(20):
        meter.add_step(step(70.2 + number * 0.2, 0.1, 0.1))
    pace = meter.activity(74.2)
    assert pace.asked == pytest.approx(pace.ran, rel=0.05)
    assert pace.ran is not None and pace.ran < 0.1
    assert meter.activity(101.0).ran == pytest.approx(0.5), "it has left the window"


def test_the_requests_of_the_last_step_are_those_that_run_now():
    meter = Meter(0.0)
    meter.add_step(step(1.0, 0.1, 0.0, 1, 1, 2, 0))
    assert meter.activity(1.5).sequences == 2, "what is computed ahead is nobody's"
    assert meter.activity(9.0).sequences == 0
