"""Time in which a process stood still is none of its own."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.running_clock import RunningClock

_STEPS = st.lists(st.integers(0, 1 << 20).map(lambda number: number / 1024), max_size=50)


@given(_STEPS, st.integers(1, 100).map(float))
def test_between_two_calls_pass_the_seconds_that_passed_or_the_most_that_may(steps, longest):
    now = [1000.0]
    clock = RunningClock(longest, lambda: now[0])
    before = clock()
    assert before == 1000.0
    for step in steps:
        now[0] += step
        assert clock() - before == min(step, longest)
        before += min(step, longest)
