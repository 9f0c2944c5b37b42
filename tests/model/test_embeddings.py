"""Embeddings by llama.cpp: of the demo model, beside its answers."""

from __future__ import annotations

import math

import pytest

from qwen_edge.llama.embedder import Embedder
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Segment


@pytest.fixture(scope="module")
def model(demo_model):
    with Model(demo_model) as model:
        yield model


@pytest.fixture
def embedder(model):
    embedder = Embedder(model, threads=2, on_device=False)
    yield embedder
    embedder.close()


def vector_of(embedder: Embedder, tokens: list[int]) -> tuple[float, ...]:
    counts, vectors = zip(*embedder.embed(tokens), strict=True)
    assert sum(counts) == len(tokens) and vectors[:-1] == (None,) * (len(vectors) - 1)
    return vectors[-1]


def alike(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return math.sumprod(one, other) if hasattr(math, "sumprod") else sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("length", [1, 31, 32, 33, 255, 256, 257, 600])
def test_a_vector_has_length_1_however_many_pieces_its_text_takes(embedder, length):
    vector = vector_of(embedder, [(7 * number) % 200 for number in range(length)])
    assert len(vector) == embedder.size and alike(vector, vector) == pytest.approx(1, abs=1e-5)


def test_the_same_text_has_the_same_vector_whatever_was_embedded_before(embedder):
    short, long = [5, 6, 7], [*range(100, 400)]
    first = vector_of(embedder, short)
    other = vector_of(embedder, long)
    assert vector_of(embedder, short) == pytest.approx(first, abs=1e-5)
    embedder.close()
    assert vector_of(embedder, long) == pytest.approx(other, abs=1e-5)


def test_an_embedding_that_is_given_up_leaves_nothing_to_the_next(embedder):
    alone = vector_of(embedder, [5, 6, 7])
    given_up = embedder.embed([*range(100, 300)])
    next(given_up)
    assert vector_of(embedder, [5, 6, 7]) == pytest.approx(alone, abs=1e-5)


def test_texts_of_one_subject_are_more_alike_than_texts_of_two(model, embedder):
    said = ["Turn on the light in the kitchen", "Turn on the light in the bedroom", "1 2 3 4 5 6 7 8 9"]
    lamp, other_lamp, numbers = (vector_of(embedder, model.vocab.tokenize((Segment(one),))) for one in said)
    assert alike(lamp, other_lamp) > alike(lamp, numbers)
