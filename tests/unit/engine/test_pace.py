"""The pace of a device is learned from what its batches took."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.pace import Pace

devices = st.tuples(st.floats(0.001, 0.1), st.floats(0.0002, 0.02), st.floats(0, 0.02))


@given(devices)
def test_after_some_batches_the_slices_fit_their_time(device):
    start, each, row = device
    pace = Pace()
    for _ in range(500):
        for tokens, rows in ((1, 1), (8, 8), (64, 1), (64, 3)):
            pace.learn(tokens, rows, start + each * tokens + row * rows)
    for tokens, rows in ((1, 1), (4, 4), (32, 2), (64, 1)):
        assert 0.8 < pace.seconds(tokens, rows) / (start + each * tokens + row * rows) < 1.25
    assert pace.seconds(pace.tokens_within(0.25, 2), 2) <= 0.25 + 1e-9


def test_one_hiccup_is_not_believed():
    pace = Pace()
    for _ in range(100):
        pace.learn(8, 1, 0.1)
    before = pace.seconds(8)
    pace.learn(8, 1, 30.0)
    assert pace.seconds(8) < 1.5 * before


@given(st.lists(st.tuples(st.integers(1, 512), st.integers(0, 16), st.floats(0, 100)), max_size=50))
def test_whatever_was_measured_a_larger_batch_takes_longer(measured):
    pace = Pace()
    for tokens, rows, seconds in measured:
        pace.learn(tokens, rows, seconds)
    assert 0 <= pace.seconds(1) < pace.seconds(2)


def test_slices_fit_their_time_though_every_batch_takes_longer_than_the_one_before():
    pace = Pace()
    for number in range(60):
        depth = 1 + number / 40  # as attention reads more and more
        tokens = max(1, pace.tokens_within(0.35, 3))
        seconds = depth * (0.05 + 0.007 * tokens)
        assert number < 10 or seconds < 0.4
        pace.learn(tokens, 3, seconds)
