"""Whatever the model writes, a finished answer fits its schema. `make slow` tries thousands of schemas."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import ValidationError

from qwen_edge.protocol.messages import Shape
from qwen_edge.structured.compiler import Compiler
from qwen_edge.structured.constraint import Constraint
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.schema import check
from tests.unit.structured import vocabulary
from tests.unit.structured.schemas import schemas
from tests.unit.structured.validation import is_judged, validator
from tests.unit.structured.wild import wild_schemas
from tests.unit.structured.writers import Choose, leading_away, noise, written

_END = vocabulary.END
_CLOSING = (_END, *tuple(b'"}]'), vocabulary.TOKENS.index(b'"}'))
_many = settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))


@cache
def _compiler() -> Compiler:
    return vocabulary.compiler()


@pytest.fixture(scope="module")
def counted() -> Iterator[Counter[str]]:
    """What became of the schemas of all tests here; `pytest -s` shows it."""
    counts = Counter[str]()
    yield counts
    print(f"\nschemas: {dict(sorted(counts.items()))}")  # noqa: T201


def _enforced(schema: dict[str, Any], *, whitespace: bool = False) -> Constraint | None:
    """The constraint of a schema; None if the schema is refused, or answers are not held to all of it."""
    try:
        return (
            None
            if check(schema).keywords
            else _compiler().compile(Shape("json_schema", json.dumps(schema), whitespace))
        )
    except ShapeError:
        return None


def answer_of_noise(schema: dict[str, Any], seed: int, *, whitespace: bool = False, most: int = 400) -> str | None:
    """An answer of noise; None if it did not end within `most` tokens."""
    constraint = _compiler().compile(Shape("json_schema", json.dumps(schema), whitespace))
    return _text(list(written(constraint, noise(seed, _CLOSING), most, (_END,))))


def _text(tokens: list[int]) -> str | None:
    return vocabulary.decode(tokens).decode() if tokens[-1:] == [_END] else None


def _fits(schema: dict[str, Any], choose: Choose, counted: Counter[str], *, whitespace: bool, most: int) -> None:
    counted["all"] += 1
    if (constraint := _enforced(schema, whitespace=whitespace)) is None:
        counted["refused"] += 1
        return
    try:
        answer = _text(list(written(constraint, choose, most, (_END,))))
    except ShapeError:
        counted["too complex on the way"] += 1
        return
    counted["cut" if answer is None else "finished"] += 1
    if answer is not None:
        counted["finished and not judged"] += not is_judged(schema, answer)


@given(schemas(), st.integers(0, 2**32), st.booleans())
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_a_finished_answer_of_noise_fits_its_schema(
    counted: Counter[str], schema: dict[str, Any], seed: int, whitespace: bool
) -> None:
    _fits(schema, noise(seed, _CLOSING), counted, whitespace=whitespace, most=400)


@given(schemas(), st.integers(0, 2**32), st.integers(0, 100))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_an_answer_that_was_led_away_from_its_end_fits_its_schema(
    counted: Counter[str], schema: dict[str, Any], seed: int, tokens: int
) -> None:
    _fits(schema, leading_away(seed, _CLOSING, tokens), counted, whitespace=False, most=tokens + 400)


@given(schemas(), st.integers(0, 2**32))
@settings(max_examples=50, suppress_health_check=list(HealthCheck))
def test_an_answer_is_complete_only_where_its_text_fits(schema: dict[str, Any], seed: int) -> None:
    if (constraint := _enforced(schema)) is None:
        return
    tokens, fits = list[int](), validator(schema)
    try:
        for token in written(constraint, noise(seed, _CLOSING), 200, (_END,)):
            # `written` gives forced tokens after it has accepted them, and chosen ones before
            tokens += [token]
            at = _enforced(schema)
            assert at
            for one in tokens:
                at.accept(one)
            if at.complete and token != _END:
                fits.validate(json.loads(vocabulary.decode(tokens).decode()))
    except ShapeError:
        return


def test_what_judges_the_answers_knows_infinite_numbers_and_says_when_it_cannot_judge() -> None:
    with pytest.raises(ValidationError, match="multiple"):
        is_judged({"multipleOf": 3}, "1e999")
    assert is_judged({"multipleOf": 8}, "8" + "0" * 400)
    assert is_judged({"anyOf": [{"multipleOf": 3}, {"type": "number"}]}, "1e999")
    assert not is_judged({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, True]}}, "$ref": "#/$defs/a"}, "1")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@given(wild_schemas(), st.integers(0, 2**32), st.booleans())
@_many
def test_answers_of_noise_fit_thousands_of_schemas(
    counted: Counter[str], schema: dict[str, Any], seed: int, whitespace: bool
) -> None:
    _fits(schema, noise(seed, _CLOSING), counted, whitespace=whitespace, most=400)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@given(wild_schemas(), st.integers(0, 2**32), st.integers(0, 100))
@_many
def test_answers_that_were_led_away_fit_thousands_of_schemas(
    counted: Counter[str], schema: dict[str, Any], seed: int, tokens: int
) -> None:
    _fits(schema, leading_away(seed, _CLOSING, tokens), counted, whitespace=False, most=tokens + 400)
