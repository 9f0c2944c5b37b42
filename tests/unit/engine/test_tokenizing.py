"""Long prompts are turned into tokens beside the decoding: nobody waits for them, and they can be forgotten."""

import threading

import pytest

from qwen_edge.engine.loop import Engine
from qwen_edge.protocol.messages import (
    Abort,
    Beat,
    Done,
    Failed,
    Pieces,
    Sampling,
    Segment,
    Stop,
    Submit,
    TokenIds,
    Tokenize,
    TokenPieces,
    Tokens,
    Warm,
)
from tests.fakes import FakeBackend, FakeVocabulary
from tests.unit.engine.test_main import Daemon

LONG = 20_000  # characters: more than are read at once


class SlowVocabulary(FakeVocabulary):
    """Reads a long prompt only when it may, and says when it has begun."""

    def __init__(self) -> None:
        self.reading, self.may_read = threading.Event(), threading.Event()
        self.read: list[str] = []

    def tokenize(self, prompt, most=float("inf"), between=lambda: None, *, begin=True):
        if self.unread(prompt) >= LONG:
            self.reading.set()
            while not self.may_read.wait(0.001):
                between()
        self.read.append(prompt[0].text[:1])
        return super().tokenize(prompt, most, between)


def slow(vocabulary=None, **options) -> FakeBackend:
    options = {"context": 100_000, "batch": 4096, **options}
    return FakeBackend(str.upper, vocabulary=vocabulary or SlowVocabulary(), **options)


def submit(number: int, text: str, **more) -> Submit:
    return Submit(number, (Segment(text),), Sampling(), **{"max_tokens": 4, "max_seconds": 60.0, **more})


def run(engine: Engine, until=lambda events: False) -> list:
    events = []
    while engine.busy and not until(events):
        events += engine.step()
    return events


def said(events, number: int) -> str:
    return "".join(event.text for event in events if isinstance(event, Tokens) and event.id == number)


def ended(number: int):
    return lambda events: any(isinstance(event, Done | Failed) and event.id == number for event in events)


def test_a_short_request_and_a_stream_are_answered_while_a_long_prompt_is_read():
    backend = slow()
    engine = Engine(backend)
    engine.submit(submit(1, "stream"))
    engine.submit(submit(2, "x" * LONG))
    engine.submit(submit(3, "short"))
    assert backend.vocabulary.reading.wait(10)
    events = run(engine, ended(3))
    assert said(events, 3) == "SHOR"
    events += run(engine, ended(1)) if not ended(1)(events) else []
    assert said(events, 1) == "STRE"
    assert engine.waits
    backend.vocabulary.may_read.set()
    events += run(engine)
    assert said(events, 2) == "XXXX"


def test_ten_long_prompts_hold_no_place_of_those_that_run():
    backend = slow(parallel=2)
    engine = Engine(backend)
    for number in range(10):
        engine.submit(submit(number, "y" * LONG))
    engine.submit(submit(10, "short"))
    assert said(run(engine, ended(10)), 10) == "SHOR"
    backend.vocabulary.may_read.set()
    assert len([event for event in run(engine) if isinstance(event, Done)]) == 10


def test_a_shorter_prompt_is_read_before_a_longer_one_that_has_just_come():
    backend = slow()
    engine = Engine(backend, lambda: 0.0)
    for number, (letter, length) in enumerate([("a", LONG), ("b", 3 * LONG), ("c", 2 * LONG), ("d", LONG)]):
        engine.submit(submit(number, letter * length))
        assert backend.vocabulary.reading.wait(10)
    backend.vocabulary.may_read.set()
    run(engine, lambda _: len(backend.vocabulary.read) == 4)
    assert backend.vocabulary.read == ["a", "d", "c", "b"]


def test_a_prompt_that_is_being_read_can_be_forgotten():
    backend = slow()
    engine = Engine(backend)
    engine.submit(submit(1, "x" * LONG))
    assert backend.vocabulary.reading.wait(10)
    engine.abort(Abort(1))
    assert not engine.busy
    backend.vocabulary.reading.clear()
    engine.submit(submit(2, "z" * LONG))
    assert backend.vocabulary.reading.wait(10), "the one that was forgotten is not read to its end"
    backend.vocabulary.may_read.set()
    assert said(run(engine), 2) == "ZZZZ"
    assert backend.vocabulary.read == ["z"]
    assert backend.open_samplers == 0


def test_a_prompt_that_cannot_fit_is_not_read_to_its_end():
    backend = slow(context=1000)
    backend.vocabulary.may_read.set()
    engine = Engine(backend)
    parts = tuple(Segment("x" * 500) for _ in range(100))
    engine.submit(Submit(1, parts, Sampling(), 4, 60.0))
    (failed,) = run(engine)
    assert (failed.code, failed.detail, failed.tokens) == ("context_too_long", "at least", 1000)


def test_who_has_waited_too_long_is_told_so_while_its_prompt_is_read():
    backend, now = slow(), [0.0]
    engine = Engine(backend, lambda: now[0])
    engine.submit(submit(1, "x" * LONG, wait_seconds=5.0))
    assert backend.vocabulary.reading.wait(10)
    assert [*engine.step()] == []
    now[0] = 5.0
    assert [*engine.step()] == [Failed(1, "waited", "")]
    assert not engine.busy


def test_a_prompt_that_names_no_token_of_the_model_is_refused_also_if_it_is_long():
    backend = slow()
    backend.vocabulary.may_read.set()
    engine = Engine(backend)
    engine.submit(Submit(1, (Segment("x" * LONG), Segment("<|nothing|>", special=True)), Sampling(), 4, 60.0))
    assert run(engine) == [Failed(1, "bad_request", "the model has no token '<|nothing|>'")]


def test_an_engine_that_breaks_also_fails_those_whose_prompts_are_read():
    backend = slow()
    engine = Engine(backend)
    engine.submit(submit(1, "x" * LONG))
    engine.submit(submit(2, "short"))
    backend.failing = True
    assert {event.id for event in run(engine) if isinstance(event, Failed)} == {1, 2, None}


def test_a_fault_of_ours_while_reading_is_not_hidden():
    class Faulty(SlowVocabulary):
        def tokenize(self, *_):
            raise RuntimeError("a bug")

    engine = Engine(slow(Faulty()))
    engine.submit(submit(1, "x" * LONG))
    with pytest.raises(RuntimeError, match="a bug"):
        run(engine)


def test_a_long_prompt_that_is_computed_ahead_is_read_beside_the_work_too():
    backend = slow()
    engine = Engine(backend, ahead_per_hour=1e9)
    engine.warm(Warm((Segment("w" * LONG),)))
    assert not engine.busy
    backend.vocabulary.may_read.set()
    while not engine.prepare():
        engine.step()
    while engine.prepare():
        pass
    assert backend.cells.used == LONG


def test_signs_of_life_are_given_while_a_prompt_is_read():
    backend = slow()
    daemon = Daemon(backend, beat_seconds=0.01)
    daemon.send(submit(1, "x" * LONG))
    assert backend.vocabulary.reading.wait(10)
    del daemon.heard[:]
    daemon.hear(lambda heard: sum(isinstance(event, Beat) for event in heard) > 3)
    backend.vocabulary.may_read.set()
    assert said(daemon.hear(ended(1)), 1) == "XXXX"
    daemon.send(Stop(0.0))
    daemon.thread.join(10)
    daemon.close()


def test_inquiries_are_answered_in_the_next_step():
    engine = Engine(slow())
    engine.ask(Tokenize(1, (Segment("ab"), Segment("<think>", special=True), Segment(tokens=(7, 8)))))
    engine.ask(Pieces(2, (104, 105, 258)))
    assert engine.admit() == [TokenIds(1, (97, 98, 258, 7, 8)), TokenPieces(2, (b"h", b"i", b"<think>"))]
    assert not engine.busy


@pytest.mark.parametrize(
    "inquiry", [Tokenize(1, (Segment(tokens=(5, 263)),)), Pieces(1, (263,)), Pieces(1, (-1,)), Pieces(1, (2**40,))]
)
def test_an_inquiry_about_a_token_that_the_model_does_not_have_fails_alone(inquiry):
    engine = Engine(slow())
    engine.ask(inquiry)
    engine.ask(Pieces(2, (104,)))
    failed, other = engine.admit()
    assert isinstance(failed, Failed)
    assert (failed.id, failed.code) == (1, "bad_request")
    assert "the model has no token" in failed.detail
    assert other == TokenPieces(2, (b"h",))


def test_a_prompt_of_tokens_that_the_model_does_not_have_is_refused():
    engine = Engine(slow())
    engine.submit(Submit(1, (Segment("a"), Segment(tokens=(999,))), Sampling(), 4, 60.0))
    (failed,) = run(engine)
    assert (failed.code, failed.detail) == ("bad_request", "the model has no token 999")


def test_a_stream_goes_on_while_the_text_of_a_long_inquiry_is_read():
    backend = slow(context=1000)
    engine = Engine(backend)
    engine.ask(Tokenize(1, (Segment("x" * LONG),)))  # many more than the context holds
    engine.submit(submit(2, "stream"))
    assert backend.vocabulary.reading.wait(10)
    assert said(run(engine, ended(2)), 2) == "STRE"
    assert engine.waits
    backend.vocabulary.may_read.set()
    (reply,) = run(engine)
    assert reply == TokenIds(1, (120,) * LONG)


def test_a_long_inquiry_can_be_forgotten():
    backend = slow()
    engine = Engine(backend)
    engine.ask(Tokenize(1, (Segment("x" * LONG),)))
    assert backend.vocabulary.reading.wait(10)
    engine.abort(Abort(1))
    assert not engine.busy
    backend.vocabulary.may_read.set()
    engine.ask(Pieces(2, (104,)))
    assert run(engine) == [TokenPieces(2, (b"h",))]
