"""Whatever the model writes, a finished answer fits its schema."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from qwen_edge.protocol.messages import Shape
from qwen_edge.structured.compiler import Compiler
from qwen_edge.structured.schema import ShapeError, check
from tests.unit.structured import vocabulary
from tests.unit.structured.schemas import noise, schemas

_CLOSING = (*tuple(b'"}]'), vocabulary.TOKENS.index(b'"}'))


@cache
def _compiler() -> Compiler:
    return vocabulary.compiler()


def answer_of_noise(schema: dict[str, Any], seed: int, *, whitespace: bool = False, most: int = 400) -> str | None:
    """An answer of noise; None if it did not end within `most` tokens."""
    constraint = _compiler().compile(Shape("json_schema", json.dumps(schema), whitespace))
    tokens = list(noise(constraint, seed, most, _CLOSING, (vocabulary.END,)))
    return vocabulary.decode(tokens).decode() if tokens[-1:] == [vocabulary.END] else None


@given(schemas(), st.integers(0, 2**32), st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_finished_answer_of_noise_fits_its_schema(schema: dict[str, Any], seed: int, whitespace: bool) -> None:
    try:
        unenforced = check(schema)
        answer = answer_of_noise(schema, seed, whitespace=whitespace)
    except ShapeError:
        return  # refused with a reason: no answer at all
    if answer is not None and not unenforced.keywords:
        Draft202012Validator(schema).validate(json.loads(answer))
