"""What may follow and what must, token by token, in answers that keep a shape, call tools or think."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest

from qwen_edge.engine.output import Output
from qwen_edge.engine.steering import Steering
from qwen_edge.protocol.messages import Markers, Sampling, Shape, Submit
from qwen_edge.structured.compiler import Compiler
from tests.unit.structured import vocabulary
from tests.unit.structured.vocabulary import END, MARKERS, SIZE, TOKENS, encode

_THINK, _CALL = Markers("<think>", "</think>"), Markers("<tool_call>", "</tool_call>")
_LAMP = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": False}
_ANSWER = Shape("json_schema", json.dumps(_LAMP))
_TOOLS = Shape("calls", json.dumps([["lamp", _LAMP], ["time", {"type": "object", "additionalProperties": False}]]))

Writer = Callable[[bytes], str | None]
"""What the model would like to write next, after the text so far; None: it does not care."""


@cache
def _compiler() -> Compiler:
    return vocabulary.compiler()


def _write(writer: Writer, *, seed: int = 0, most: int = 400, **fields: Any) -> tuple[str, Steering]:
    """The answer of a model that writes what the writer says where it may, else noise."""
    request = Submit(1, (), Sampling(), most, 1e9, **fields)
    output = Output((), request.reasoning, request.calls, reasons=request.reasons)
    shapes = [_compiler().compile(shape) if shape else None for shape in (request.shape, request.call_shape)]
    steering = Steering(request, output.region, vocabulary.Vocabulary(), *shapes)
    tokens, rng = list[int](), Random(seed)

    def take(more: Iterable[int]) -> None:
        for token in more:
            tokens.append(token)
            output.push(b"" if token == END else vocabulary.decode([token]))
            steering.accept(token, output.region)

    while len(tokens) < most and tokens[-1:] != [END] and not steering.end:
        if forced := steering.forced():
            take(forced)
            continue
        allowed = steering.allowed()
        allowed = np.ones(SIZE, np.bool_) if allowed is None else allowed
        wish = vocabulary.encode_marked(writer(vocabulary.decode(tokens)) or "")[:1]
        choices = np.flatnonzero(allowed)
        take(wish if wish and allowed[wish[0]] else [int(choices[rng.randrange(len(choices))])])
    return vocabulary.decode(tokens).decode("utf-8", "replace"), steering


def _says(text: str) -> Writer:
    """A model that writes this text, and then ends its turn."""
    return lambda so_far: text[len(so_far.decode()) :] or "<end>" if text.encode().startswith(so_far) else None


def test_without_anything_asked_for_the_model_writes_what_it_likes() -> None:
    text, steering = _write(_says("Hello!"))
    assert text == "Hello!" and steering.steered.forced == steering.steered.masks == 0


def test_an_answer_keeps_its_shape_and_ends_with_it() -> None:
    text, steering = _write(_says("No, I will not."), shape=_ANSWER)
    assert json.loads(text) in ({"on": True}, {"on": False})
    assert steering.end == "stop"


def test_thinking_is_opened_is_free_and_the_shape_begins_behind_it() -> None:
    thought = '<think>\nLet me see {"on": what}.</think>\n\n'
    text, steering = _write(_says(thought + '{"on":true}'), shape=_ANSWER, reasoning=_THINK)
    assert text == thought + '{"on":true}'
    assert steering.end == "stop"


def test_a_model_that_would_not_think_is_made_to_before_it_answers_in_the_shape() -> None:
    text, _ = _write(
        lambda so_far: "</think>" if so_far.endswith(b"<think>") else None, shape=_ANSWER, reasoning=_THINK
    )
    assert text.startswith("<think></think>\n\n{") and json.loads(text.rpartition("\n\n")[2]) is not None


def test_a_required_call_is_a_call_whatever_the_model_would_say() -> None:
    text, _ = _write(_says("Sorry, no."), calls=_CALL, call_shape=_TOOLS, requires_call=True, parallel_calls=False)
    body = text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
    assert body != text and json.loads(body)["name"] in ("lamp", "time")


def test_behind_a_required_call_only_another_call_or_the_end_may_come() -> None:
    text, _ = _write(
        lambda so_far: "Then" if so_far.endswith(b"</tool_call>") else None,
        calls=_CALL,
        call_shape=_TOOLS,
        requires_call=True,
        most=4000,
    )
    assert "Then" not in text
    for one in text.split("\n<tool_call>"):
        body = one.removeprefix("<tool_call>").removesuffix("</tool_call>")
        assert json.loads(body)["name"] in ("lamp", "time")


def test_a_call_that_the_model_opens_itself_is_held_to_the_tools() -> None:
    text, _ = _write(
        lambda so_far: "Yes: <tool_call>"[len(so_far) :] if len(so_far) < 16 else "<end>",
        calls=_CALL,
        call_shape=_TOOLS,
    )
    before, _, rest = text.partition("<tool_call>\n")
    assert before == "Yes: "
    assert json.loads(rest.removesuffix("\n</tool_call>"))["name"] in ("lamp", "time")


def test_behind_a_call_of_its_own_the_model_may_go_on() -> None:
    said = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>\nDone.'
    text, _ = _write(_says(said), calls=_CALL, call_shape=_TOOLS)
    assert text == said


def test_without_parallel_calls_the_first_call_is_the_end() -> None:
    said = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
    text, steering = _write(_says(said + "\n" + said), calls=_CALL, call_shape=_TOOLS, parallel_calls=False)
    assert text == said and steering.end == "stop"


@pytest.mark.parametrize("said", ['{"on":true}', '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'])
def test_an_answer_with_a_shape_may_be_a_call_where_tools_are_offered(said: str) -> None:
    text, _ = _write(_says(said), shape=_ANSWER, calls=_CALL, call_shape=_TOOLS)
    assert text == said


def test_thinking_ends_with_its_budget_and_the_answer_follows() -> None:
    text, _ = _write(
        lambda so_far: (
            "a" if b"</think>" not in so_far else ("Yes."[len(so_far.rpartition(b"</think>\n\n")[2]) :] or "<end>")
        ),
        reasoning=_THINK,
        reasons=True,
        thinking_budget=30,
    )
    thought, _, answer = text.partition("</think>\n\n")
    assert thought.startswith("a" * 30 + "\n\n")
    assert answer == "Yes."


@pytest.mark.parametrize("reasons", [True, False])
def test_a_budget_of_0_closes_thinking_before_its_first_token(reasons: bool) -> None:
    said = "<think>" * (not reasons)
    text, steering = _write(
        lambda so_far: said if not so_far else "Yes."[len(so_far.rpartition(b"</think>\n\n")[2]) :] or "<end>",
        reasoning=_THINK,
        reasons=reasons,
        thinking_budget=0,
    )
    assert text == said + "\n</think>\n\nYes."
    assert steering.end is None


def test_near_the_end_of_its_budget_the_closing_marker_becomes_likelier_and_likelier() -> None:
    request = Submit(1, (), Sampling(), 400, 1e9, reasoning=_THINK, reasons=True, thinking_budget=100)
    steering = Steering(request, "reasoning", vocabulary.Vocabulary())
    biases = list[float]()
    for _ in range(100):
        biases.append(steering.biases.get(MARKERS["</think>"], 0.0))
        steering.accept(ord("a"), "reasoning")
    assert biases[:37] == [0.0] * 37
    assert all(one < other for one, other in pairwise(biases[36:]))


def test_a_loop_in_the_reasoning_closes_it_and_in_the_answer_ends_it() -> None:
    text, steering = _write(
        lambda so_far: "again " if len(so_far) % 6 == 0 else "again "[len(so_far) % 6 :], stops_loops=True
    )
    assert steering.end == "stop" and steering.stopped_by == "loop" and len(text) < 120
    text, steering = _write(
        lambda so_far: "x" if b"</think>" not in so_far else "<end>", reasoning=_THINK, reasons=True, stops_loops=True
    )
    assert text.endswith("</think>\n\n") and steering.stopped_by == ""


def test_a_loop_inside_a_shape_is_cut_and_never_called_complete() -> None:
    shape = Shape("json_schema", '{"type": "string"}')
    _, steering = _write(lambda so_far: "x" if so_far else '"', shape=shape, stops_loops=True)
    assert steering.end == "length" and steering.stopped_by == "loop"


def test_guesses_are_taken_as_far_as_the_shape_allows() -> None:
    request = Submit(1, (), Sampling(), 400, 1e9, shape=_ANSWER)
    steering = Steering(request, "answer", vocabulary.Vocabulary(), _compiler().compile(_ANSWER))
    guesses = encode('{"on":maybe')
    assert b"".join(TOKENS[one] for one in guesses[: steering.agrees(guesses)]) == b'{"on":'


@pytest.mark.parametrize("seed", range(20))
def test_whatever_noise_the_model_writes_its_calls_are_calls(seed: int) -> None:
    """Noise that likes to open and close everything."""
    rng = Random(seed)
    text, steering = _write(
        lambda _: rng.choice(["<tool_call>", "</tool_call>", "<end>", "\n", "}", None, None]), seed=seed, most=2000,
        calls=_CALL, call_shape=_TOOLS, requires_call=True, reasoning=_THINK, thinking_budget=20,
    )  # fmt: skip
    answer = text.partition("</think>")[2].strip()
    assert steering.steered.forced > 10
    for one in answer.split("</tool_call>")[:-1]:  # what is behind the last one may be cut
        assert json.loads(one.strip().removeprefix("<tool_call>"))["name"] in ("lamp", "time")
