"""A constraint, from its first token to its end."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qwen_edge.protocol.messages import Shape
from qwen_edge.structured.compiler import Compiler
from qwen_edge.structured.constraint import Constraint
from qwen_edge.structured.schema import ShapeError
from tests.unit.structured import vocabulary
from tests.unit.structured.vocabulary import END, encode

_LAMP = {
    "type": "object",
    "properties": {"name": {"enum": ["lamp", "fan"]}, "on": {"type": "boolean"}},
    "required": ["name", "on"],
    "additionalProperties": False,
}
_TOOLS = Shape("calls", json.dumps([["lamp", _LAMP], ["no_arguments", {}]]))


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return vocabulary.compiler()


def _json(compiler: Compiler, schema: object, *, whitespace: bool = False) -> Constraint:
    return compiler.compile(Shape("json_schema", json.dumps(schema), whitespace))


def _feed(constraint: Constraint, text: str) -> None:
    for token in encode(text):
        constraint.accept(token)


def test_what_is_forced_is_what_every_answer_begins_with(compiler: Compiler) -> None:
    assert vocabulary.decode(_json(compiler, _LAMP).forced()) == b'{"name":"'


def test_after_a_choice_the_rest_of_it_is_forced(compiler: Compiler) -> None:
    constraint = _json(compiler, _LAMP)
    _feed(constraint, '{"name":"f')
    assert vocabulary.decode(constraint.forced()).startswith(b"an")


def test_only_tokens_that_can_lead_to_an_answer_are_allowed(compiler: Compiler) -> None:
    constraint = _json(compiler, _LAMP)
    _feed(constraint, '{"name":"lamp","on":')
    allowed = {vocabulary.decode([int(token)]) for token in np.flatnonzero(constraint.allowed())}
    assert allowed == {b"t", b"f", b"true"}


def test_compact_json_has_no_white_space_and_the_other_may(compiler: Compiler) -> None:
    for whitespace in (False, True):
        constraint = _json(compiler, _LAMP, whitespace=whitespace)
        assert bool(constraint.agrees(encode("{ ")) >= 2) is whitespace


def test_a_complete_answer_is_done_and_only_an_end_token_may_follow(compiler: Compiler) -> None:
    constraint = _json(compiler, _LAMP)
    _feed(constraint, '{"name":"lamp","on":true')
    assert not constraint.complete
    _feed(constraint, "}")
    assert constraint.complete and constraint.done and constraint.forced() == []
    assert list(np.flatnonzero(constraint.allowed())) == [END]
    constraint.accept(END)


def test_an_answer_that_may_go_on_is_complete_but_not_done(compiler: Compiler) -> None:
    constraint = compiler.compile(Shape("regex", "a+"))
    _feed(constraint, "a")
    assert constraint.complete and not constraint.done
    assert {int(token) for token in np.flatnonzero(constraint.allowed())} == {ord("a"), END}


def test_guesses_are_good_up_to_the_first_that_may_not_follow(compiler: Compiler) -> None:
    constraint = _json(compiler, _LAMP)
    guesses = encode('{"name":"lamp","ox')
    assert vocabulary.decode(guesses[: constraint.agrees(guesses)]) == b'{"name":"lamp","o'
    assert vocabulary.decode(constraint.forced()) == b'{"name":"'  # nothing was accepted


def test_the_end_of_a_call_and_its_line_break_may_be_one_token(compiler: Compiler) -> None:
    """As in Qwen's tokenization of the calls that the model was trained with."""
    constraint = compiler.compile(_TOOLS)
    _feed(constraint, '{"name": "lamp", "arguments": {"name": "fan", "on": true')
    last = vocabulary.TOKENS.index(b"}}\n")
    assert constraint.allowed()[last]
    constraint.accept(last)
    assert constraint.done


def test_a_token_that_may_not_follow_is_an_error_and_no_silent_one(compiler: Compiler) -> None:
    with pytest.raises(ShapeError):
        _json(compiler, _LAMP).accept(ord("x"))


def test_two_answers_of_one_shape_do_not_know_of_each_other(compiler: Compiler) -> None:
    one, other = _json(compiler, _LAMP), _json(compiler, _LAMP)
    _feed(one, '{"name":"lamp","on":true}')
    assert one.done and not other.complete


@pytest.mark.parametrize(
    ("shape", "fits", "fits_not"),
    [
        (Shape("regex", r"\d{2}:\d{2}/x"), "18:30/x", "1:30/x"),
        (Shape("regex", "[^/]+"), "a", "/"),
        (Shape("choice", json.dumps(["on", 'o"ff', "ü\n"])), 'o"ff', "of"),
        (Shape("choice", json.dumps(["on", "on and off"])), "on and off", "on and"),
        (Shape("lark", 'start: "a"+ B\nB: /[0-9]/'), "aa7", "aa"),
        (Shape("gbnf", 'root ::= item ("," item)*\nitem ::= [a-z]+'), "a,bc", "a,"),
        (Shape("json_schema", '{"type": ["integer", "null"]}'), "null", "nul"),
        (_TOOLS, '{"name": "lamp", "arguments": {"name": "fan", "on": true}}\n', '{"name": "fan", "arguments": {}}\n'),
        (_TOOLS, '{"name": "no_arguments", "arguments": {}}\n', '{"name": "lamp", "arguments": {}}\n'),
    ],
)  # fmt: skip
def test_each_kind_of_shape_takes_what_fits_and_nothing_else(
    compiler: Compiler, shape: Shape, fits: str, fits_not: str
) -> None:
    constraint = compiler.compile(shape)
    _feed(constraint, fits)
    assert constraint.complete
    constraint = compiler.compile(shape)
    tokens = encode(fits_not)
    good = constraint.agrees(tokens)
    for token in tokens[:good]:
        constraint.accept(token)
    assert good < len(tokens) or not constraint.complete


def test_references_inside_a_tool_s_schema_lead_to_its_own_definitions(compiler: Compiler) -> None:
    def tool(kind: str) -> dict[str, object]:
        x = {"properties": {"x": {"$ref": "#/$defs/q"}}, "required": ["x"]}
        return {"type": "object", **x, "$defs": {"q": {"type": kind}}}

    shape = Shape("calls", json.dumps([["f", tool("integer")], ["g", tool("boolean")]]))
    for name, fits in (("g", True), ("f", False)):
        tokens = encode(f'{{"name": "{name}", "arguments": {{"x": true}}}}')
        assert (compiler.compile(shape).agrees(tokens) == len(tokens)) is fits


@pytest.mark.parametrize(
    "shape",
    [
        Shape("regex", "(?=a)b"),
        Shape("regex", "["),
        Shape("lark", "start: nobody"),
        Shape("lark", 'start: a\na: "x" a'),
        Shape("gbnf", "root ::= nobody"),
        Shape("gbnf", "root = ["),
        Shape("json_schema", '{"type": "thing"}'),
        Shape("json_schema", '{"type": "integer", "minimum": 3, "maximum": 2}'),
        Shape("json_schema", '{"enum": []}'),
        Shape("choice", "[]"),
    ],
)
def test_a_shape_that_cannot_be_kept_is_refused_in_a_sentence(compiler: Compiler, shape: Shape) -> None:
    with pytest.raises(ShapeError) as refused:
        compiler.compile(shape)
    assert str(refused.value) and "\n" not in str(refused.value)


def test_the_vocabulary_is_read_for_the_first_shape_and_never_again() -> None:
    made = list[object]()

    def make() -> object:
        made.append(None)
        return vocabulary.tokenizer()

    compiler = Compiler(make, vocabulary.SIZE, [END])
    assert made == []
    shape = Shape("regex", "a")
    assert not compiler.knows(shape)
    compiler.compile(shape)
    compiler.compile(Shape("regex", "b"))
    assert compiler.knows(shape) and len(made) == 1
