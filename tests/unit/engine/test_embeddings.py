"""Embeddings are computed a piece at a time beside the answers."""

from __future__ import annotations

from itertools import takewhile

import pytest

from qwen_edge.core.errors import EngineError
from qwen_edge.engine.loop import Engine
from qwen_edge.protocol.messages import (
    Abort,
    Done,
    Embed,
    Embedded,
    Failed,
    Limits,
    Sampling,
    Segment,
    Share,
    StepStats,
    Submit,
)
from tests.fakes import FakeBackend, ticking

LONG = tuple(range(100))  # 25 pieces


@pytest.fixture
def engine():
    return Engine(FakeBackend(lambda prompt: "an answer of some length"), ticking(0.001))


def turn(engine: Engine) -> list:
    return [*engine.step(), *(engine.embed() or ())]


def turns(engine: Engine) -> list:
    heard = []
    while engine.busy:
        heard += turn(engine)
    return heard


def test_a_text_has_a_vector_of_length_1_and_every_token_is_told(engine):
    engine.ask(Embed(7, LONG))
    heard = turns(engine)
    (answer,) = [one for one in heard if isinstance(one, Embedded)]
    assert answer.id == 7 and sum(one * one for one in answer.vector) == pytest.approx(1)
    shares = [share for one in heard if isinstance(one, StepStats) for share in one.shares]
    assert {share.id for share in shares} == {7} and sum(share.prompt for share in shares) == 100
    assert Share(7, 4, 0) in shares


def test_an_answer_goes_on_while_a_long_text_is_embedded(engine):
    engine.ask(Embed(1, LONG))
    engine.submit(Submit(2, (Segment("question"),), Sampling(), max_tokens=100, max_seconds=1e9))
    heard = turns(engine)
    before = [*takewhile(lambda one: not isinstance(one, Embedded), heard)]
    tokens = [one for one in before if not isinstance(one, StepStats)]
    assert len(tokens) > 5  # of the answer, beside the 25 pieces
    assert [one.reason for one in heard if isinstance(one, Done)] == ["stop"]


def test_texts_are_embedded_in_the_order_in_which_they_came(engine):
    for number in (3, 1, 2):
        engine.ask(Embed(number, LONG[: 10 * number]))
    assert [one.id for one in turns(engine) if isinstance(one, Embedded)] == [3, 1, 2]


@pytest.mark.parametrize("pieces", [0, 1, 24])
def test_a_text_that_nobody_waits_for_is_dropped_at_once(engine, pieces):
    engine.ask(Embed(1, LONG))
    engine.ask(Embed(2, LONG[:5]))
    for _ in range(pieces):
        turn(engine)
    engine.abort(Abort(1))
    engine.abort(Abort(99))
    assert [one.id for one in turns(engine) if isinstance(one, Embedded)] == [2]


def test_nothing_is_embedded_while_the_device_must_cool_down(engine):
    engine.allow(Limits(duty=0.0))
    engine.ask(Embed(1, LONG))
    assert engine.embed() is None and engine.busy
    engine.allow(Limits())
    assert any(isinstance(one, Embedded) for one in turns(engine))


def test_a_text_for_which_there_is_no_memory_is_refused_and_the_next_is_embedded(engine, monkeypatch):
    embed = engine._backend.embedder.embed

    def small(tokens):
        if len(tokens) > 50:
            raise EngineError("there is no memory")
        return embed(tokens)

    monkeypatch.setattr(engine._backend.embedder, "embed", small)
    engine.ask(Embed(1, LONG))
    engine.ask(Embed(2, LONG[:5]))
    refused, done = [one for one in turns(engine) if isinstance(one, Failed | Embedded)]
    assert refused == Failed(1, "no_memory", "there is no memory")
    assert isinstance(done, Embedded) and done.id == 2


def test_the_memory_of_embeddings_is_given_back_when_there_is_nothing_to_do(engine):
    engine.ask(Embed(1, LONG))
    turns(engine)
    assert engine._backend.embedder.open
    engine.tidy()
    assert not engine._backend.embedder.open
