"""A constraint, from its first token to its end."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from qwen_edge.protocol.messages import Shape
from qwen_edge.structured.compiler import Compiler
from qwen_edge.structured.constraint import Constraint
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.finite import MOST_REFERENCES
from qwen_edge.structured.grammar import _MOST_RULES
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
    assert compiler.known(shape) is None
    compiler.compile(shape)
    compiler.compile(Shape("regex", "b"))
    assert compiler.known(shape) and len(made) == 1


def _chain(kind: str, rules: int) -> Shape:
    """The longest way that a compiler may have to follow."""
    if kind == "json_schema":
        chain = {f"a{one}": {"type": "array", "items": {"$ref": f"#/$defs/a{one + 1}"}} for one in range(rules)}
        schema = {"$ref": "#/$defs/a0", "$defs": {**chain, f"a{rules}": {"type": "string"}}}
        return Shape("json_schema", json.dumps(schema))
    defines, name = (": ", "start") if kind == "lark" else (" ::= ", "root")
    lines = [f'r{one}{defines}("x" (r{one + 1} | "z"))*' for one in range(rules)]
    return Shape(
        "lark" if kind == "lark" else "gbnf", "\n".join([f"{name}{defines}r0", *lines, f'r{rules}{defines}"a"'])
    )


@pytest.mark.parametrize(
    ("kind", "most"), [("lark", _MOST_RULES), ("gbnf", _MOST_RULES), ("json_schema", MOST_REFERENCES)]
)
def test_the_longest_chain_of_rules_is_compiled_in_a_thread_s_stack_and_a_longer_one_is_refused(
    compiler: Compiler, kind: str, most: int
) -> None:
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(compiler.compile, _chain(kind, most - 4)).result()
        with pytest.raises(ShapeError, match=str(most)):
            thread.submit(compiler.compile, _chain(kind, most + 10)).result()


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (Shape("lark", "start: A\nA: /([ab]{97})*/ & /([ab]{89})*/"), "&"),
        (Shape("lark", 'start: "a" # no text"\n  | B\nB: /x/ & /y/'), "&"),
        (Shape("lark", 'start: %json {"type": "integer", "multipleOf": 100000007}'), "%json"),
        (Shape("gbnf", 'root ::= "' + "ab" * 20_000 + '"'), "characters"),
        (Shape("regex", "a{100000}"), "forced"),
        (Shape("json_schema", json.dumps({"const": "ab" * 20_000})), "forced"),
        (Shape("lark", "start: " + " | ".join(f'"x{one}"' for one in range(3000))), "items"),
        (Shape("calls", json.dumps([["f", {"description": "x" * 300_000}]])), "characters"),
        (Shape("json_schema", "[" * 100_000), "cannot be read"),
    ],
)
def test_a_shape_that_would_take_too_long_is_refused_before_any_answer_begins(
    compiler: Compiler, shape: Shape, why: str
) -> None:
    with pytest.raises(ShapeError, match=re.escape(why)):
        compiler.compile(shape)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (Shape("regex", "(a"), 'invalid regex "(a"'),
        (Shape("calls", json.dumps([["f", {"type": "string", "pattern": r"\Z"}]])), "regex parse error"),
        (Shape("gbnf", "root ::= [a-"), "the grammar cannot be read"),
        (Shape("lark", "start: nowhere"), "at 1(8): unknown name"),
    ],
)
def test_only_a_reason_about_the_client_s_own_text_has_a_position(compiler: Compiler, shape: Shape, why: str) -> None:
    with pytest.raises(ShapeError) as refused:
        compiler.compile(shape)
    assert refused.value.what.startswith(why)


def test_a_grammar_that_is_neither_gbnf_nor_lark_is_said_to_be_read_as_lark(compiler: Compiler) -> None:
    with pytest.raises(ShapeError, match="read as Lark, because no rule has ::="):
        compiler.compile(Shape("lark", "hello"))


@pytest.mark.parametrize(
    "text",
    ['start: "a & b"', "start: /a&b/", 'start: "x" // a & b', 'start: "%json"', 'start: /[^"&]+/ "&"'],
)
def test_what_is_only_text_in_a_grammar_is_not_taken_for_its_operators(compiler: Compiler, text: str) -> None:
    assert compiler.compile(Shape("lark", text))


def test_many_words_to_choose_from_are_no_many_rules(compiler: Compiler) -> None:
    words = [f"word {number}" for number in range(3000)]
    constraint = compiler.compile(Shape("choice", json.dumps(words)))
    _feed(constraint, "word 2999")
    assert constraint.done


def test_a_shape_that_was_refused_is_refused_again_at_once(compiler: Compiler) -> None:
    shape = Shape("json_schema", '{"type": "nothing at all"}')
    for _ in range(2):
        with pytest.raises(ShapeError, match="nothing"):
            compiler.compile(shape)
    with pytest.raises(ShapeError, match="nothing"):
        compiler.known(shape)


def test_a_known_shape_does_not_wait_for_one_that_is_being_compiled() -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    class Slow(Compiler):
        def _compile(self, shape: Shape) -> Constraint:
            if shape.text == "slow":
                begun.set()
                assert may_go_on.wait(10)
            return super()._compile(shape)

    compiler = Slow(vocabulary.tokenizer, vocabulary.SIZE, [END])
    compiler.compile(Shape("regex", "quick"))
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(compiler.compile, Shape("regex", "slow"))
        assert begun.wait(10)
        assert compiler.known(Shape("regex", "quick"))
        assert compiler.known(Shape("regex", "slow")) is None
        may_go_on.set()
        assert slow.result()


@pytest.mark.parametrize("kind", ["choice", "calls"])
def test_texts_with_any_character_can_be_written(compiler: Compiler, kind: str) -> None:
    words = [f"a{chr(number)}" for number in (*range(256), 0x2028, 0xFEFF, 0x1F600)]
    schema = {"type": "object", "properties": {word: {"const": word} for word in words}, "required": words}
    for shape in [words] if kind == "choice" else [[[word, {}] for word in words], [["a", schema]]]:
        assert not compiler.compile(Shape("choice" if kind == "choice" else "calls", json.dumps(shape))).done
