"""The plan of a step: whatever runs, it fits the bounds, leaves nobody behind, and changes nothing."""

import math
from copy import copy

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.cost_model import CostModel
from qwen_edge.engine.output import Output
from qwen_edge.engine.scheduler import Bounds, cells_ahead, plan
from qwen_edge.engine.sequence import Running, Sequence
from qwen_edge.engine.speculate import Answers, Draft, Lookup
from qwen_edge.engine.steering import Steering
from qwen_edge.protocol.messages import PRIORITIES, Sampling, Segment, Submit
from tests.fakes import FakeVocabulary


def running(number: int, prompt: list[int], computed: int, *, answer: int = 0, priority="interactive", arrived=0.0):
    """A sequence with so many tokens of answer, whose first `computed` tokens are computed."""
    request = Submit(number, (Segment("x"),), Sampling(), 1000, 1e9, priority=priority)
    lookup = Lookup(Answers(), len(prompt), lambda _: False)
    steering = Steering(request, "answer", FakeVocabulary())
    one = Sequence(request, list(prompt), None, Output(()), steering, lookup, arrived)
    if answer:
        one.first_token_at = arrived
        one.tokens += range(1000, 1000 + answer)
    one.phase, one.computed = Running(number), min(computed, len(one.tokens) - 1)
    return one


def state(one: Sequence | CostModel) -> dict:
    values = vars(one) | (vars(one.lookup) if isinstance(one, Sequence) else {})
    return {name: copy(value) if isinstance(value, list | dict) else value for name, value in values.items()}


sequences = st.lists(
    st.tuples(
        st.lists(st.integers(0, 1), min_size=1, max_size=60),  # a prompt; many have a beginning in common
        st.integers(0, 80),
        st.integers(0, 3),
        st.sampled_from(PRIORITIES),
        st.floats(0, 10),
    ),
    max_size=8,
).map(
    lambda rows: [
        running(number, prompt, computed, answer=answer, priority=priority, arrived=arrived)
        for number, (prompt, computed, answer, priority, arrived) in enumerate(rows)
    ]
)
drafted = st.dictionaries(
    st.integers(0, 7), st.builds(Draft, st.lists(st.integers(0, 9), max_size=7).map(tuple), st.floats(0, 1))
)
bounds = st.builds(
    Bounds, st.integers(8, 64), st.integers(8, 16), st.floats(0.001, 1), st.sampled_from((0.05, 1, math.inf))
)
costs = st.builds(CostModel, st.floats(0.001, 0.1), st.floats(0.0001, 0.05), st.floats(0.0001, 0.05))


@given(sequences, drafted, bounds, costs, st.integers(0, 200))
def test_whatever_runs_the_plan_fits_the_bounds_and_changes_nothing(running, guesses, bounds, cost, turn):
    drafts = {one: guesses[one.request.id] for one in running if one.request.id in guesses}
    before, weights = [state(one) for one in running], state(cost)
    chunks = plan(running, drafts, bounds, cost, turn=turn)
    assert [state(one) for one in running] == before, "a sequence was changed"
    assert state(cost) == weights
    assert chunks == plan(running, drafts, bounds, cost, turn=turn), "the same values give another plan"

    assert sum(chunk.size for chunk in chunks) <= bounds.batch
    assert sum(chunk.rows for chunk in chunks) <= bounds.rows
    assert len({chunk.sequence for chunk in chunks}) == len(chunks), "one chunk of each sequence"
    for chunk in chunks:
        one = chunk.sequence
        assert chunk.start == one.computed
        assert 1 <= chunk.length <= one.remaining
        assert chunk.samples == (chunk.length == one.remaining)
        assert not chunk.guesses or chunk.samples
        assert chunk.guesses == drafts.get(one, Draft((), 0.0)).tokens[: len(chunk.guesses)]


@given(sequences, bounds, costs, st.integers(0, 200))
def test_every_answer_of_the_highest_priority_goes_on_in_every_step(running, bounds, cost, turn):
    planned = {chunk.sequence for chunk in plan(running, {}, bounds, cost, turn=turn)}
    best = min((one.rank for one in running), default=0)
    due = [one for one in running if one.rank == best]
    assert all(one in planned for one in due if one.answering)
    assert bool(planned) == bool(running), "somebody computes in every step"


@given(sequences, bounds, costs)
def test_whoever_runs_all_of_its_tokens_are_computed_after_a_bounded_number_of_steps(running, bounds, cost):
    """As the engine does it, but nobody is given a next token: who has caught up leaves."""
    turn, tokens = 0, sum(one.remaining for one in running)
    while running:
        for chunk in plan(running, {}, bounds, cost, turn=turn):
            chunk.sequence.computed += chunk.length
        running = [one for one in running if one.remaining]
        turn += 1
        assert turn <= 64 * (tokens + 1), "a sequence is left behind"


def test_tokens_that_were_put_behind_an_answer_are_computed_at_once_beside_the_other_streams():
    """Forced tokens: a sequence lacks them as it lacks its last token, and no step in between is needed."""
    forced = running(1, [1] * 40, 40, answer=20)
    forced.computed = 45
    stream = running(2, [2] * 30, 35, answer=6)
    chunks = plan([forced, stream], {}, Bounds(64, 8, 0.001), CostModel(), turn=1)
    assert [(chunk.sequence, chunk.start, chunk.length, chunk.samples) for chunk in chunks] == [
        (forced, 45, 15, True),
        (stream, 35, 1, True),
    ]


def test_more_forced_tokens_than_a_batch_holds_leave_each_stream_its_token():
    forced = [running(number, [number] * 10, 10, answer=30) for number in range(3)]
    for one in forced:
        one.computed = 10
    stream = running(7, [7] * 10, 15, answer=6)
    chunks = plan([*forced, stream], {}, Bounds(40, 8, 1.0), CostModel(), turn=1)
    assert [chunk.length for chunk in chunks] == [30, 8, 1, 1]
    assert {chunk.sequence for chunk in chunks} == {*forced, stream}
    assert chunks[-1].samples


def test_a_long_way_behind_an_answer_catches_up_as_a_prompt_does():
    """An answer that had to give way and lost its cells must not make the streams stall."""
    behind = running(1, [1] * 400, 0, answer=20)
    stream = running(2, [2] * 30, 35, answer=6)
    cost = CostModel(0.02, 0.01, 0.0)
    chunks = {chunk.sequence: chunk for chunk in plan([behind, stream], {}, Bounds(512, 8, 0.32), cost, turn=1)}
    assert chunks[stream].length == 1
    assert 8 <= chunks[behind].length <= 32


@given(sequences)
def test_cells_are_made_ready_for_every_token_that_nobody_else_computes(running):
    def lacking(one: Sequence) -> int:
        """Tokens of this one that no sequence has computed; the last token is never shared."""
        others = (min(one.in_common(other), other.computed) for other in running if other is not one)
        return len(one.tokens) - max(one.computed, min(max(others, default=0), len(one.tokens) - 1))

    soon, later = cells_ahead(running)
    assert soon <= later
    assert soon >= max(map(lacking, running), default=0)


def test_of_two_equal_prompts_each_computes_its_last_token_in_a_cell_of_its_own():
    assert cells_ahead([running(1, [5] * 10, 0), running(2, [5] * 10, 0)])[0] == 10 + 1
