"""Thousands of schemas with a real vocabulary and the real sampler: a finished answer fits, whatever the logits say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_edge.llama.bindings import C
from qwen_edge.llama.model import Model
from qwen_edge.llama.sampler import Sampler
from qwen_edge.llama.shape_tokenizer import shape_tokenizer
from qwen_edge.llama.vocab import Vocab
from qwen_edge.protocol.messages import Sampling, Shape
from qwen_edge.structured.compiler import Compiler
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.schema import check
from tests.shared.conftest import SHARED
from tests.unit.structured.schemas import schemas
from tests.unit.structured.validation import is_judged
from tests.unit.structured.wild import wild_schemas
from tests.unit.structured.writers import written

pytestmark = [pytest.mark.model, pytest.mark.timeout(3000)]

QWEN = SHARED / "data" / "ggml-vocab-qwen2.gguf"
_MOST = 200  # tokens of an answer
_LIKED = 12.0  # what the logits of closing tokens gain, as an answer of noise would hardly ever end
_samplings = st.builds(
    partial(Sampling, temperature=2.0),
    top_k=st.sampled_from([0, 1, 20, 500]),
    top_p=st.sampled_from([1.0, 0.9]),
    min_p=st.sampled_from([0.0, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 2**31),
)
_generated = st.one_of(schemas(), wild_schemas())
_few = settings(max_examples=50, suppress_health_check=list(HealthCheck))
_many = settings(max_examples=2000, suppress_health_check=list(HealthCheck))


class Held:
    """Answers with one vocabulary, and what became of them."""

    def __init__(self, vocab: Vocab) -> None:
        self.vocab, self.counts = vocab, Counter[str]()
        self._compiler = Compiler(partial(shape_tokenizer, vocab), vocab.size, vocab.ends)
        marks = [vocab.encode_marked(mark)[0] for mark in ('"', "}", "]", '"}')]
        self._closing = [*marks, *vocab.ends]

    def fits(self, schema: dict[str, Any], sampling: Sampling, *, forbidden: bool) -> None:
        """Write an answer and validate it. `forbidden`: what may not follow is by far the likeliest."""
        self.counts["all"] += 1
        try:
            if check(schema).keywords:
                raise ShapeError("not all of it is enforced")
            constraint = self._compiler.compile(Shape("json_schema", json.dumps(schema)))
        except ShapeError:
            self.counts["refused"] += 1
            return
        logits = _Logits(self.vocab.size, self._closing, sampling.seed, forbidden=forbidden)
        cells = SimpleNamespace(size=4096, logits=logits.row, context=SimpleNamespace(handle=None))
        sampler = Sampler(sampling, cells, self.vocab)  # type: ignore[arg-type]

        def choose(allowed: Any) -> int:
            logits.allowed = allowed
            return sampler.sample(0, allowed)

        try:
            tokens = list(written(constraint, choose, _MOST, self.vocab.ends))
        except ShapeError:
            self.counts["too complex on the way"] += 1
            return
        finally:
            sampler.close()
        if tokens[-1] not in self.vocab.ends:
            self.counts["cut"] += 1
            return
        self.counts["finished"] += 1
        answer = b"".join(self.vocab.piece(token) for token in tokens[:-1]).decode()
        self.counts["finished and not judged"] += not is_judged(schema, answer)


class _Logits:
    """Noise in place of a model's logits."""

    def __init__(self, size: int, closing: Sequence[int], seed: int, *, forbidden: bool) -> None:
        self._rng, self._forbidden = np.random.default_rng(seed), forbidden
        self._noise = (4 * self._rng.standard_normal(size)).astype(np.float32)
        self._closing = list(closing)
        self.allowed: Any = None

    def row(self, _row: int) -> Any:
        logits = np.roll(self._noise, int(self._rng.integers(len(self._noise))))
        if self._rng.random() < 0.5:
            logits[self._closing] += _LIKED
        if self._forbidden:
            logits[~self.allowed] += 1000.0
        return logits


def _vocab_only(path: Any) -> Iterator[Held]:
    params = C.llama_model_default_params()
    params.vocab_only = True
    model = C.llama_model_load_from_file(bytes(path), params)
    held = Held(Vocab(C.llama_model_get_vocab(model)))
    yield held
    print(f"\nschemas: {dict(sorted(held.counts.items()))}")  # noqa: T201
    C.llama_model_free(model)


@pytest.fixture(scope="module")
def demo(demo_model: Any) -> Iterator[Held]:
    with Model(demo_model) as model:
        held = Held(model.vocab)
        yield held
        print(f"\nschemas: {dict(sorted(held.counts.items()))}")  # noqa: T201


@pytest.fixture(scope="module")
def qwen() -> Iterator[Held]:
    if not QWEN.is_file():
        pytest.skip(f"{QWEN} is not there")
    yield from _vocab_only(QWEN)


@given(_generated, _samplings, st.booleans())
@_few
def test_an_answer_of_noise_through_the_sampler_fits_its_schema(
    demo: Held, schema: dict[str, Any], sampling: Sampling, forbidden: bool
) -> None:
    demo.fits(schema, sampling, forbidden=forbidden)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", ["qwen", "demo"])
def test_answers_of_noise_with_real_vocabularies_fit_thousands_of_schemas(
    request: pytest.FixtureRequest, vocabulary: str
) -> None:
    held: Held = request.getfixturevalue(vocabulary)

    @given(_generated, _samplings, st.booleans())
    @_many
    def fits(schema: dict[str, Any], sampling: Sampling, forbidden: bool) -> None:
        held.fits(schema, sampling, forbidden=forbidden)

    fits()
