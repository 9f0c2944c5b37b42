"""The pace of a device is learned from what its batches took."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.cost_model import CostModel

devices = st.tuples(st.floats(0.001, 0.1), st.floats(0.0002, 0.02), st.floats(0, 0.02))


@given(devices)
def test_after_some_batches_the_slices_fit_their_time(device):
    start, each, row = device
    pace = CostModel()
    for _ in range(500):
        for tokens, rows in ((1, 1), (8, 8), (64, 1), (64, 3)):
            pace.learn(tokens, rows, start + each * tokens + row * rows)
    for tokens, rows in ((1, 1), (4, 4), (32, 2), (64, 1)):
        assert 0.8 < pace.seconds(tokens, rows) / (start + each * tokens + row * rows) < 1.25
    assert pace.seconds(pace.tokens_within(0.25, 2), 2) <= 0.25 + 1e-9


def test_one_hiccup_is_not_believed():
    pace = CostModel()
    for _ in range(100):
        pace.learn(8, 1, 0.1)
    before = pace.seconds(8)
    pace.learn(8, 1, 30.0)
    assert pace.seconds(8) < 1.5 * before


def seconds_of(tokens: int, rows: int, depth: int) -> float:
    """What a batch took on two cores with a full-size model."""
    shallow = 0.03 + 0.006 * tokens + 0.008 * (rows - 1)
    return shallow + depth / 1900 * (0.018 + 0.0057 * tokens)


@pytest.mark.parametrize("seed", range(20))
def test_slices_keep_their_time_whatever_ran_before_and_however_noisy_the_machine(seed):
    pace, random, slices = CostModel(), Random(seed), list[float]()

    def run(tokens: int, rows: int, depth: int) -> float:
        late = random.uniform(1.3, 3) if random.random() < 0.03 else 1.0
        seconds = seconds_of(tokens, rows, depth)
        pace.learn(tokens, rows, seconds * late * math.exp(random.gauss(0, 0.07)))
        return seconds

    for _ in range(3):
        for depth in range(0, 1792, 128):
            run(128, 0, depth)
        for _ in range(random.choice((8, 128))):
            run(1, 1, 1800)
        for _ in range(random.choice((0, 40))):
            run(8, 8, 600)
        for _ in range(5):
            run(2, 2, 100)
        depth = 100
        while depth < 1900:
            tokens = min(128, pace.tokens_within(0.4, 2))
            slices.append(run(tokens, 2, depth))
            depth += tokens
    assert len(slices) > 100
    assert max(slices) < 0.7  # the first ones rest on what other work took
    assert sum(seconds > 0.5 for seconds in slices) < 0.1 * len(slices)


@given(st.lists(st.tuples(st.integers(1, 512), st.integers(0, 16), st.floats(0, 100)), max_size=50))
def test_whatever_was_measured_a_larger_batch_takes_longer(measured):
    pace = CostModel()
    for tokens, rows, seconds in measured:
        pace.learn(tokens, rows, seconds)
    assert 0 <= pace.seconds(1) < pace.seconds(2)


def test_slices_fit_their_time_though_every_batch_takes_longer_than_the_one_before():
    pace = CostModel()
    for number in range(60):
        depth = 1 + number / 40  # as attention reads more and more
        tokens = max(1, pace.tokens_within(0.35, 3))
        seconds = depth * (0.05 + 0.007 * tokens)
        assert number < 10 or seconds < 0.4
        pace.learn(tokens, 3, seconds)
