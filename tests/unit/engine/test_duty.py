"""The engine computes for its share of the time, whatever its steps and timers are like, and loses nothing by it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.duty import Duty
from qwen_edge.engine.loop import Engine
from qwen_edge.protocol.messages import Done, Limits, Sampling, Segment, StepStats, Submit, Tokens, Warm
from tests.fakes import FakeBackend


@given(
    st.floats(0.05, 0.99),
    st.lists(st.tuples(st.floats(0.005, 0.4), st.floats(0.0, 0.005)), min_size=100, max_size=200),
)
def test_the_share_is_kept_within_three_percent_though_timers_are_late(share, steps):
    duty, computed, rested = Duty(), 0.0, 0.0
    duty.allow(Limits(duty=share))
    for seconds, late in steps:
        duty.ran(0.0, seconds, 1, ())
        computed += seconds
        while (rest := duty.rest) > 0:
            slept = min(rest, 0.25) + late
            duty.rested(slept, busy=True)
            rested += slept
    # what a late timer has given away beyond the credit is lost, as it would overheat to make up for more
    lost = sum(max(0.0, late * share / (1 - share) - 0.02) for _, late in steps)
    assert computed / (computed + rested) <= share * 1.03
    assert (computed + lost) / (computed + rested) >= share * 0.97


def test_all_of_the_time_is_no_rest_and_none_is_rest_without_end():
    duty = Duty()
    duty.ran(0.0, 1.0, 0, ())
    assert duty.rest == 0.0
    duty.allow(Limits(duty=0.0))
    assert duty.rest == math.inf
    duty.rested(1e6, busy=True)
    assert duty.rest == math.inf
    duty.allow(Limits(duty=0.5))
    assert duty.rest == 0.0, "that was rest enough"


def test_a_long_time_at_full_duty_is_no_debt():
    duty = Duty()
    for _ in range(1000):
        duty.ran(0.0, 0.1, 1, ())
    duty.allow(Limits(duty=0.5))
    assert duty.rest == 0.0
    duty.ran(0.0, 0.1, 1, ())
    assert duty.rest == pytest.approx(0.1)


def test_after_a_pause_there_is_no_rest_left_to_take():
    duty = Duty()
    duty.allow(Limits(duty=0.5))
    duty.ran(0.0, 0.4, 1, ())
    duty.allow(Limits(duty=0.0))
    duty.rested(20.0, busy=True)
    duty.allow(Limits(duty=0.5))
    assert duty.rest == 0.0
    duty.ran(0.0, 0.4, 1, ())
    assert duty.rest == pytest.approx(0.4, abs=0.03), "nor is the pause saved up"


def test_idle_hours_are_not_saved_up():
    duty = Duty()
    duty.allow(Limits(duty=0.5))
    duty.rested(3600.0, busy=False)
    duty.ran(0.0, 1.0, 0, ())
    assert duty.rest == pytest.approx(1.0, abs=0.03)


def test_what_was_rested_is_told_with_the_next_step():
    duty = Duty()
    duty.rested(5.0, busy=False)
    duty.rested(0.25, busy=True)
    assert duty.ran(7.0, 0.1, 3, ()) == StepStats(7.0, 0.1, 0.25, 3, ())
    assert duty.ran(8.0, 0.1, 0, ()).rested == 0.0
    assert duty.slept == 0.25


class Home:
    """An engine whose batches take 50 ms on a fake clock, and which rests as the process around it would."""

    def __init__(self, **options) -> None:
        self.now = 0.0
        home = self

        class Timed(FakeBackend):
            def decode(self, slices) -> None:
                super().decode(slices)
                home.now += 0.05

        self.backend = Timed(lambda prompt: "an answer of some words", **options)
        self.engine = Engine(self.backend, lambda: self.now, ahead_per_hour=math.inf)
        self.events: list = []

    def ask(self, request: int, text: str, **changes) -> None:
        fields = {"max_tokens": 1000, "max_seconds": 1e6, **changes}
        self.engine.submit(Submit(request, (Segment(text),), Sampling(), **fields))

    def turn(self) -> None:
        self.events += self.engine.admit()
        if rest := self.engine.duty.rest:
            rest = min(rest, 1.0)
            self.now += rest
            self.engine.duty.rested(rest, busy=self.engine.busy)
        else:
            self.events += self.engine.step()

    def answer(self) -> str:
        while self.engine.busy:
            self.turn()
        return "".join(event.text for event in self.events if isinstance(event, Tokens))

    @property
    def measured(self) -> float:
        steps = [event for event in self.events if isinstance(event, StepStats)]
        computed = sum(step.seconds for step in steps)
        return computed / (computed + sum(step.rested for step in steps))


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_what_the_engine_ran_is_what_it_was_allowed_and_the_answer_is_the_same(share):
    home = Home(batch=16)
    home.engine.allow(Limits(duty=share, speculate=False))
    home.ask(1, "x" * 200)
    assert home.answer() == "an answer of some words"
    assert home.measured == pytest.approx(share, rel=0.03)


def test_a_paused_engine_lets_in_and_lets_go_and_goes_on_where_it_was():
    home = Home(batch=16)
    home.ask(1, "one")
    for _ in range(5):
        home.turn()
    home.engine.allow(Limits(duty=0.0))
    home.ask(2, "two")
    decodes = len(home.backend.decodes)
    for _ in range(50):
        home.turn()
    assert len(home.backend.decodes) == decodes
    home.engine.allow(Limits())
    home.answer()
    for request in (1, 2):
        said = "".join(event.text for event in home.events if isinstance(event, Tokens) and event.id == request)
        assert said == "an answer of some words"
    assert [event.reason for event in home.events if isinstance(event, Done)] == ["stop", "stop"]


def test_rests_do_not_count_as_the_time_that_an_answer_may_take_unless_its_client_says_so():
    for limits, reason in (({"work_seconds": 5.0}, "stop"), ({"max_seconds": 5.0}, "length")):
        home = Home(batch=16)
        home.engine.allow(Limits(duty=0.05, speculate=False))
        home.ask(1, "x", **limits)
        home.answer()
        (end,) = [event for event in home.events if isinstance(event, Done)]
        assert end.reason == reason


def test_idle_work_waits_until_it_is_allowed():
    home = Home(batch=16)
    home.engine.allow(Limits(idle_work=False))
    home.engine.warm(Warm((Segment("what comes next"),)))
    assert not home.engine.prepare()
    home.engine.allow(Limits())
    while prepared := home.engine.prepare():
        home.events += prepared
    shares = [share for event in home.events if isinstance(event, StepStats) for share in event.shares]
    assert {share.id for share in shares} == {0}
    assert sum(share.prompt for share in shares) == len("what comes next")


def test_guesses_are_made_only_where_they_are_allowed():
    home = Home(batch=64)
    home.backend.script = lambda prompt: "again and again and again and again and again"
    home.engine.allow(Limits(speculate=False))
    home.ask(1, "x")
    home.answer()
    assert {length for batch in home.backend.decodes for _, length in batch} == {1}
    assert home.backend.used_threads == 4
    home.engine.allow(Limits(threads=0.5))
    assert home.backend.used_threads == 2


def test_every_step_tells_whose_tokens_it_computed():
    home = Home(batch=16)
    home.engine.allow(Limits(speculate=False))
    home.ask(1, "x" * 20)
    text = home.answer()
    steps = [event for event in home.events if isinstance(event, StepStats)]
    shares = [share for step in steps for share in step.shares]
    assert {share.id for share in shares} == {1}
    assert sum(share.prompt for share in shares) == 20
    assert sum(share.decoded for share in shares) == len(text), "the last token ends it, and is never computed"
    assert sum(step.chosen for step in steps) == len(text) + 1
    assert all(step.seconds == pytest.approx(0.05) for step in steps)
