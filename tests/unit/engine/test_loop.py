"""The engine answers every request in full, whatever comes between; the fake model notices any misplaced token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.loop import Engine
from qwen_edge.engine.sequence import Finished, Restoring, Running, Waiting
from qwen_edge.engine.step_result import StepResult
from qwen_edge.protocol.messages import (
    PRIORITIES,
    Abort,
    Done,
    Failed,
    Limits,
    Sampling,
    Segment,
    Started,
    StepStats,
    Submit,
    Tokens,
)
from tests.fakes import FakeBackend, ticking


def echo(prompt: str) -> str:
    return f"you said {prompt}!"


def submit(request_id: int, *texts: str, **changes) -> Submit:
    prompt = tuple(Segment(text, text.startswith("<")) for text in texts)
    return Submit(request_id, prompt, Sampling(), **{"max_tokens": 1000, "max_seconds": 60.0, **changes})


def run(engine: Engine) -> list:
    events = []
    while engine.busy:
        events += engine.step()
    return events


def text_of(events, request_id: int) -> str:
    return "".join(event.text for event in events if isinstance(event, Tokens) and event.id == request_id)


def end_of(events, request_id: int):
    (end,) = [event for event in events if isinstance(event, Done | Failed) and event.id == request_id]
    return end


def test_an_answer_comes_in_pieces_and_ends_with_its_counts():
    engine = Engine(FakeBackend(echo))
    engine.submit(submit(1, "hello"))
    events = run(engine)
    assert text_of(events, 1) == "you said hello!"
    assert end_of(events, 1).reason == "stop"
    assert (end_of(events, 1).prompt_tokens, end_of(events, 1).cached_tokens) == (5, 0)


def test_long_prompts_are_computed_in_slices_of_the_batch():
    backend = FakeBackend(echo, batch=16)
    engine = Engine(backend)
    engine.submit(submit(1, "x" * 40, max_tokens=1))
    run(engine)
    assert backend.decodes == [[(0, 16)], [(16, 16)], [(32, 8)]]


def test_the_next_turn_computes_only_what_is_new():
    backend = FakeBackend(echo)
    engine = Engine(backend)
    engine.submit(submit(1, "system. ", "one"))
    run(engine)
    backend.decodes.clear()
    engine.submit(submit(2, "system. ", "two", max_tokens=1))
    done = end_of(run(engine), 2)
    assert done.cached_tokens == len("system. ")
    assert backend.decodes == [[(8, 3)]]


def test_the_same_prompt_again_computes_one_token():
    backend = FakeBackend(echo)
    engine = Engine(backend)
    for request_id in (1, 2):
        engine.submit(submit(request_id, "the very same"))
        events = run(engine)
        assert text_of(events, request_id) == "you said the very same!"
    assert end_of(events, 2).cached_tokens == len("the very same") - 1


def test_a_prompt_that_cannot_fit_is_refused_with_its_length():
    engine = Engine(FakeBackend(echo, context=32))
    engine.submit(submit(1, "x" * 32))
    (failed,) = run(engine)
    assert (failed.code, failed.tokens) == ("context_too_long", 32)


def test_an_answer_ends_where_the_context_does():
    backend = FakeBackend(echo, context=32)
    engine = Engine(backend)
    engine.submit(submit(1, "x" * 20))
    events = run(engine)
    assert end_of(events, 1).reason == "length"
    assert len(text_of(events, 1)) == 12


def test_an_answer_is_no_longer_than_asked():
    engine = Engine(FakeBackend(echo))
    engine.submit(submit(1, "hello", max_tokens=3))
    events = run(engine)
    assert (text_of(events, 1), end_of(events, 1).reason) == ("you", "length")


def test_an_answer_takes_no_more_time_than_allowed():
    engine = Engine(FakeBackend(echo), ticking(1.0))
    engine.submit(submit(1, "hello", max_seconds=5.0))
    done = end_of(run(engine), 1)
    assert done.reason == "length"
    assert done.completion_tokens < 6


def test_time_in_which_the_machine_stood_still_takes_nothing_from_an_answer():
    backend, now = FakeBackend(echo, parallel=1), [100.0]
    engine = Engine(backend, lambda: now[0], longest_step=20.0)
    engine.submit(submit(1, "hello", max_seconds=60.0, work_seconds=60.0))
    engine.submit(submit(2, "hello", wait_seconds=60.0))
    events = [*engine.step()]
    now[0] += 3600.0
    events += run(engine)
    assert [end_of(events, number).reason for number in (1, 2)] == ["stop", "stop"]
    assert end_of(events, 1).decode_seconds <= 20.0


def test_a_step_in_which_the_machine_stood_still_is_not_rested_for_an_hour():
    backend, now = FakeBackend(echo), [100.0]
    engine = Engine(backend, lambda: now[0], longest_step=20.0)
    engine.allow(Limits(duty=0.5))
    engine.submit(submit(1, "hello"))
    decode = backend.decode

    def stands_still(slices) -> None:
        now[0] += 3600.0
        decode(slices)

    backend.decode = stands_still
    *_, ran = [event for event in engine.step() if isinstance(event, StepStats)]
    assert engine.duty.rest <= 20.0
    assert (ran.began, ran.began + ran.seconds) == (now[0] - 20.0, now[0]), "its end is on the clock of all processes"


def test_a_stop_text_is_not_part_of_the_answer():
    engine = Engine(FakeBackend(echo))
    engine.submit(submit(1, "hello", stop=("said",)))
    events = run(engine)
    assert (text_of(events, 1), end_of(events, 1).reason) == ("you ", "stop")


def test_a_failed_decode_fails_its_request_and_tells_that_the_engine_is_done_for():
    backend = FakeBackend(echo)
    engine = Engine(backend)
    engine.submit(submit(1, "one"))
    backend.failing = True
    result = engine.step()
    _, failed, end = result
    assert (failed.id, failed.code, end.id) == (1, "engine", None)
    assert result.broken
    assert backend.open_samplers == 0


def test_an_unknown_special_token_is_refused():
    engine = Engine(FakeBackend(echo))
    engine.submit(submit(1, "<|unheard|>"))
    assert end_of(run(engine), 1).code == "bad_request"


def test_an_empty_prompt_is_refused():
    engine = Engine(FakeBackend(echo))
    engine.submit(submit(1))
    assert end_of(run(engine), 1).code == "bad_request"


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_an_aborted_request_says_nothing_more_within_one_step(steps):
    backend = FakeBackend(echo)
    engine = Engine(backend)
    engine.submit(submit(1, "hello"))
    for _ in range(steps):
        engine.step()
    engine.abort(Abort(1))
    decodes = len(backend.decodes)
    assert run(engine) == []
    assert len(backend.decodes) == decodes
    assert backend.open_samplers == 0


actions = st.lists(
    st.tuples(
        st.just("submit"),
        st.tuples(st.text(st.sampled_from("ab"), min_size=1, max_size=24), st.sampled_from(PRIORITIES)),
    )
    | st.tuples(st.just("abort"), st.integers(0, 20))
    | st.tuples(st.just("step"), st.integers(1, 30)),
    max_size=30,
)


@given(actions, st.sampled_from((48, 64, 128)))
def test_whatever_is_submitted_and_aborted_every_other_answer_is_whole(plan, context):
    backend = FakeBackend(echo, context=context, batch=8, parallel=3)
    engine = Engine(backend)
    prompts: dict[int, str] = {}
    aborted: set[int] = set()
    events = []
    for kind, value in plan:
        if kind == "submit":
            prompts[len(prompts)] = value[0]
            engine.submit(submit(len(prompts) - 1, value[0], priority=value[1]))
        elif kind == "abort":
            if not any(isinstance(event, Done) and event.id == value for event in events):
                aborted.add(value)
            engine.abort(Abort(value))
        else:
            for _ in range(value):
                events += engine.step()
    events += run(engine)
    for request_id, prompt in prompts.items():
        if request_id not in aborted:
            done = end_of(events, request_id)
            whole = echo(prompt)
            expected = whole[: context - len(prompt)]
            assert text_of(events, request_id) == expected
            assert done.reason == ("stop" if len(prompt) + len(whole) < context else "length")
    assert backend.open_samplers == 0
    assert engine.open_cells == 0


risky = st.lists(
    st.tuples(
        st.just("submit"),
        st.tuples(
            st.text(st.sampled_from("ab"), min_size=1, max_size=24),
            st.sampled_from(PRIORITIES),
            st.sampled_from((0.5, 5.0, 1e9)),
            st.sampled_from((0.5, 5.0, 1e9)),
        ),
    )
    | st.tuples(st.just("abort"), st.integers(0, 20))
    | st.tuples(st.just("step"), st.integers(1, 30))
    | st.tuples(st.just("fail"), st.none()),
    max_size=30,
)


@given(risky, st.sampled_from((40, 64, 1000)), st.booleans())
def test_whatever_fails_or_takes_too_long_every_request_ends_once_and_nothing_is_left(plan, context, speculates):
    backend = FakeBackend(echo, context=context, batch=8, parallel=3)
    backend.cells.spare, backend.cells.host_tier_cells = context % 60, context % 50
    engine = Engine(backend, ticking(0.01), speculates=speculates)
    submitted, aborted, events, broken = 0, set(), [], False
    for kind, value in plan:
        if broken:
            break
        if kind == "submit":
            text, priority, wait, most = value
            engine.submit(submit(submitted, text, priority=priority, wait_seconds=wait, max_seconds=most))
            submitted += 1
        elif kind == "abort":
            ended = any(isinstance(event, Done | Failed) and event.id == value for event in events)
            if value < submitted and not ended:
                aborted.add(value)
            engine.abort(Abort(value))
        elif kind == "fail":
            backend.failing = True
        else:
            for result in (engine.step() for _ in range(value)):
                events += result
                broken = broken or result.broken
    steps = 0
    while engine.busy:
        result = engine.step()
        events += result
        broken = broken or result.broken
        steps += 1
        assert steps < 200 * (submitted + 1), "somebody starves"
    for request_id in range(submitted):
        ends = [event for event in events if isinstance(event, Done | Failed) and event.id == request_id]
        assert len(ends) == (request_id not in aborted)
    assert backend.open_samplers == 0
    if not broken:
        assert engine.open_cells == 0
        cells = engine._kv_cache._allocation
        assert len(cells._unused) + len(cells.tree._ends) == backend.cells.sequences, "a sequence has leaked"


def test_a_first_word_is_one_that_is_seen_and_comes_once_for_each_answer():
    engine = Engine(FakeBackend(lambda prompt: "\n\nyes, it is"))
    engine.submit(Submit(1, (Segment("on?"),), Sampling(), 100, 1e9))
    said, first = "", list[str]()
    while engine.busy:
        result = engine.step()
        said += "".join(event.text for event in result if isinstance(event, Tokens))
        if result.first_word:
            first.append(said)
    assert (said, first) == ("\n\nyes, it is", ["\n\ny"])
    assert not engine.step().first_word


def test_a_result_tells_what_the_step_did():
    engine = Engine(FakeBackend(echo), ticking(0.01))
    assert engine.step() == StepResult()
    engine.submit(submit(1, "hello"))
    result = engine.step()
    assert (result.computed, result.chosen, result.first_word, result.broken) == (5, 1, True, False)
    assert [type(event) for event in result] == [Started, StepStats, Tokens]
    (stats,) = [event for event in result if isinstance(event, StepStats)]
    assert (stats.seconds, stats.chosen) == (result.seconds, 1) and stats.seconds > 0
    result = engine.step()
    assert (result.computed, result.chosen, result.first_word) == (1, 1, False)


def test_a_sequence_goes_through_its_phases_and_through_no_others():
    engine = Engine(FakeBackend(echo, parallel=1))
    engine.submit(submit(1, "hello", priority="idle"))
    engine.admit()
    (one,) = engine._places.sequences
    assert isinstance(one.phase, Restoring)
    engine.step()
    assert isinstance(one.phase, Running)
    engine.submit(submit(2, "now"))
    engine.step()
    assert (one.phase, one.computed) == (Waiting(), 0)
    for illegal in (lambda: one.seq_id, one.restored, one.give_way):
        with pytest.raises(AssertionError):
            illegal()
    run(engine)
    assert one.phase == Finished()
    for illegal in (lambda: one.seq_id, one.restored, one.give_way, one.finish):
        with pytest.raises(AssertionError):
            illegal()
