"""While other programs compute, fewer threads do if that is quicker; else all do, and little is lost over tries."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.loop import Engine
from qwen_edge.engine.thread_choice import ThreadChoice
from qwen_edge.protocol.messages import Done, Limits, Sampling, Segment, Submit
from tests.fakes import FakeBackend

_USUAL = 0.02  # seconds of a step of one token with all threads, alone


class Device:
    """Steps on a device with some cores, on some of which other programs compute. `pace` says how many times as long a
    step takes with so many threads, and how often a second a core is taken away."""

    def __init__(self, threads: int, pace) -> None:
        self.choice, self.pace = ThreadChoice(threads), pace
        self.now, self.seconds = 0.0, 0.0
        self.counts: list[int] = []

    def run(self, seconds: float, *, contended: bool, size: float = 1.0) -> list[int]:
        """Steps for so long; returns the numbers of threads."""
        until, before = self.now + seconds, len(self.counts)
        while self.now < until:
            self.choice.begin(self.now)
            count = self.choice.count
            self.counts.append(count)
            slowness, taken = self.pace(count, contended)
            took = size * _USUAL * slowness
            self.now += took
            self.choice.ran(took, size, taken * took, self.now)
        return self.counts[before:]


def spinning(threads: int, free: int):
    """The pace where a thread without a core of its own makes all wait, while `free` cores are free."""
    return lambda count, contended: (20.0, 400.0) if contended and count > free else (threads / count, 5.0)


@given(st.integers(1, 8), st.lists(st.tuples(st.floats(0.001, 5.0), st.floats(0.0, 499.0)), max_size=200))
def test_alone_all_threads_compute_however_long_steps_take(most, steps):
    choice, now = ThreadChoice(most), 0.0
    for seconds, rate in steps:
        now += seconds
        choice.ran(seconds, 1.0, rate / most * seconds, now)
        assert choice.count == most


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 10), st.floats(0, 1e4), st.integers(0, 8)), max_size=300),
)
def test_there_is_always_a_thread_and_never_more_than_are_allowed(most, steps):
    choice, now = ThreadChoice(most), 0.0
    for seconds, usual, taken, allowed in steps:
        now += seconds
        if allowed:
            most = allowed
            choice.allow(most)
        choice.ran(seconds, usual, taken, now)
        assert 1 <= choice.count <= most


@given(st.integers(2, 8), st.data(), st.sampled_from([1.0, 4.0, 8.0]))
def test_as_many_compute_as_have_cores_of_their_own_and_all_when_the_others_have_ended(threads, data, size):
    free = data.draw(st.integers(1, threads - 1))
    device = Device(threads, spinning(threads, free))
    assert set(device.run(30, contended=False, size=size)) == {threads}
    device.run(60 * threads, contended=True, size=size)  # steps are slow meanwhile, and tries are few
    settled = device.run(600, contended=True, size=size)
    assert settled.count(free) > 0.8 * len(settled)
    device.run(100 * threads, contended=False, size=size)
    assert set(device.run(100, contended=False, size=size)) == {threads}


def test_the_first_words_beside_another_program_are_few_until_a_thread_less_computes():
    device = Device(2, spinning(2, 1))
    device.run(5, contended=False)
    counts = device.run(1.5, contended=True)
    assert counts.index(1) <= 14, "and most of these were computed before the other program came"
    assert set(counts[counts.index(1) :]) == {1}


@given(st.integers(2, 8))
def test_where_fewer_threads_are_no_quicker_hardly_any_time_goes_into_tries(threads):
    device = Device(threads, lambda count, _: (threads / count, 400.0))
    counts = device.run(600, contended=True)
    assert counts.count(threads) > 0.97 * len(counts)
    assert threads - 1 in counts


def test_after_a_rest_all_threads_are_tried_again():
    device = Device(4, spinning(4, 3))
    device.run(5, contended=True)
    assert device.choice.count == 3
    device.now += 60
    assert device.run(0.001, contended=False) == [4], "the first step already"


def test_where_the_last_threads_bring_little_all_compute_again_when_the_others_have_ended():
    slowness = {8: 1.0, 7: 1.01, 6: 1.02, 5: 1.05, 4: 1.1, 3: 1.3, 2: 1.8, 1: 3.2}

    def pace(count, contended):
        return (20.0, 400.0) if contended and count > 4 else (slowness[count], 5.0)

    device = Device(8, pace)
    device.run(5, contended=False)
    assert device.run(120, contended=True)[-1] == 4
    device.run(15, contended=False)
    assert set(device.run(60, contended=False)) == {8}


def test_a_limit_that_says_the_same_again_changes_nothing():
    device = Device(4, spinning(4, 3))
    device.run(5, contended=True)
    device.choice.allow(4)
    assert device.choice.count == 3
    device.choice.allow(2)
    assert device.choice.count == 2
    device.choice.allow(4)
    assert device.choice.count == 4


def test_the_engine_computes_with_fewer_threads_beside_another_program_and_never_with_more_than_it_may():
    now, used = 0.0, []
    backend = FakeBackend(lambda _: "word " * 60, context=600)
    decode = backend.decode

    def beside_another(slices) -> None:
        nonlocal now
        decode(slices)
        used.append(backend.used_threads)
        seconds = 0.02 if backend.used_threads < backend.threads else 0.1
        now += seconds
        backend.preempted += 400 * seconds if backend.used_threads == backend.threads else 0

    backend.decode = beside_another

    def clock() -> float:
        return now

    engine = Engine(backend, clock, speculates=False)

    def answer(number: int) -> None:
        engine.submit(Submit(number, (Segment("say"),), Sampling(), 250, 1e9))
        while not any(isinstance(event, Done) for event in engine.step()):
            pass

    answer(1)
    assert used[0] == 4
    assert used.count(3) > 0.8 * len(used)
    engine.allow(Limits(threads=0.5))
    del used[:]
    answer(2)
    assert max(used) == 2
