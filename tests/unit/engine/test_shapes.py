"""Answers that keep a shape, in the engine: what is computed, what is said, and how they end.

At each place of its answer the model wants the byte that its script has there, and takes the first token that may
follow if that one may not.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from qwen_edge.engine.loop import Engine
from qwen_edge.protocol.messages import (
    Abort,
    Done,
    Failed,
    Markers,
    Outbound,
    Sampling,
    Segment,
    Shape,
    Started,
    Submit,
    Tokens,
)
from qwen_edge.protocol.sampling import NO_BIASES
from qwen_edge.structured.compiler import Compiler
from qwen_edge.structured.constraint import Constraint
from qwen_edge.structured.errors import ShapeError
from tests.fakes import END, FakeBackend, FakeCells, FakeSampler, byte_tokenizer, ticking

THINK, CALL = Markers("<think>", "</think>"), Markers("<tool_call>", "</tool_call>")
ROOMS = ("kitchen", "hall", "kids")
LAMP = {
    "type": "object",
    "properties": {"room": {"enum": [*ROOMS]}, "on": {"type": "boolean"}},
    "required": ["room", "on"],
    "additionalProperties": False,
}
SHAPE = Shape("json_schema", json.dumps(LAMP))
ANSWER = '{"room":"hall","on":true}'
TOOLS = Shape("calls", json.dumps([["lamp", LAMP]]))
IMPOSSIBLE = Shape("json_schema", '{"type": "thing"}')


def validates(text: str) -> bool:
    answer = json.loads(text)
    return answer.keys() == {"room", "on"} and answer["room"] in ROOMS and answer["on"] in (True, False)


class Writer(FakeSampler):
    """Wants the byte that the script has at the same place, whatever was forced before it."""

    def sample(self, row: int, allowed: Any = None, biases: Mapping[int, float] = NO_BIASES) -> int:
        sequence, length = self._backend.logits[row]
        cells = self._backend.cells.held(sequence)[:length]
        prompt = cells[: length - len(self._said)]
        assert cells[len(prompt) :] == self._said, "the cache does not hold what was said"
        text = b"".join(self._backend.vocabulary.piece(token) for token in prompt).decode()
        script = [*self._backend.vocabulary.encode_marked(self._backend.script(text)), END]
        wanted = script[min(len(self._said), len(script) - 1)]
        self._said.append(wanted if allowed is None or allowed[wanted] else int(np.flatnonzero(allowed)[0]))
        return self._said[-1]


class WritingBackend(FakeBackend):
    def sampler(self, settings: Sampling) -> Writer:
        self.open_samplers += 1
        return Writer(self, settings)


class Home:
    """An engine, its model and what was heard of it."""

    def __init__(self, said: str, **options) -> None:
        speculates = options.pop("speculates", True)
        self.backend = WritingBackend(lambda prompt: said, **{"batch": 64, **options})
        self.engine = Engine(self.backend, ticking(0.001), speculates=speculates)
        self.events: list[Outbound] = []

    def ask(self, number: int = 1, prompt: str = "question", **changes) -> None:
        fields = {"sampling": Sampling(), "max_tokens": 1000, "max_seconds": 1e9, **changes}
        self.engine.submit(Submit(number, (Segment(prompt),), **fields))

    def learn(self, *shapes: Shape) -> None:
        """The shapes have been asked for before."""
        for shape in shapes:
            self.backend.shapes.compile(shape)

    def step(self) -> None:
        self.events += self.engine.step()
        if self.engine.waits:
            time.sleep(0.001)  # as the engine process hears messages meanwhile: its clock is not to run ahead

    def run(self) -> None:
        while self.engine.busy:
            self.step()
        assert self.backend.open_samplers == 0

    def said(self, number: int = 1) -> str:
        return "".join(one.text for one in self.events if isinstance(one, Tokens) and one.id == number)

    def logprobs(self, number: int = 1) -> list:
        heard = [one for one in self.events if isinstance(one, Tokens) and one.id == number]
        return [one for event in heard for one in event.logprobs]

    def done(self, number: int = 1) -> Done:
        (end,) = [one for one in self.events if isinstance(one, Done | Failed) and one.id == number]
        assert isinstance(end, Done), end
        return end

    def failed(self, number: int = 1) -> Failed:
        (end,) = [one for one in self.events if isinstance(one, Done | Failed) and one.id == number]
        assert isinstance(end, Failed)
        return end


# one answer


def test_an_answer_keeps_its_shape_and_ends_without_an_end_token():
    home = Home("the hall, please", speculates=False)
    home.ask(shape=SHAPE)
    home.run()
    done = home.done()
    assert validates(home.said())
    assert (done.reason, done.stopped_by) == ("stop", "")
    assert done.completion_tokens == len(home.said()), "no end token was chosen, or counted"
    # three choices at most, and no batch after the last of them
    computed = sum(length for batch in home.backend.decodes for _, length in batch)
    assert computed < len("question") + done.completion_tokens
    assert done.steered.masks <= 3 and done.steered.forced == done.completion_tokens - done.steered.masks


def test_tokens_forced_before_the_first_choice_are_computed_with_the_prompt():
    home = Home(ANSWER, speculates=False)
    home.learn(SHAPE)
    home.ask(shape=SHAPE)
    home.step()
    assert home.backend.decodes == [[(0, len("question") + len('{"room":"'))]]
    assert home.said() == '{"room":"h' + 'all","on":'
    begun = [type(event) for event in home.events if getattr(event, "id", None) == 1]
    assert begun.index(Started) < begun.index(Tokens)


def test_forced_tokens_are_computed_in_one_batch_with_the_choice_before_them():
    home = Home(ANSWER, speculates=False)
    home.learn(SHAPE)
    home.ask(shape=SHAPE)
    home.run()
    assert home.said() == ANSWER
    begin = len("question")
    # the prompt with {"room":" , then h with all","on": ; the rest behind t is not computed, since the answer is whole
    assert home.backend.decodes == [[(0, begin + 9)], [(begin + 9, len('hall","on":'))]]
    assert home.done().steered.masks == 2


def test_more_forced_tokens_than_one_batch_takes_are_computed_in_several():
    home = Home(ANSWER, batch=4, parallel=1, speculates=False)
    home.ask(shape=SHAPE)
    home.run()
    assert home.said() == ANSWER
    assert max(sum(length for _, length in batch) for batch in home.backend.decodes) <= 4


@pytest.mark.parametrize("prompt", ["", "q", "question"])
def test_forced_tokens_do_not_count_as_tokens_of_the_prompt(prompt):
    home = Home(ANSWER, speculates=False)
    for number, cached in ((1, 0), (2, len("p" + prompt))):
        home.ask(number, "p" + prompt, shape=SHAPE)
        home.run()
        assert (home.done(number).prompt_tokens, home.done(number).cached_tokens) == (1 + len(prompt), cached)


@pytest.mark.parametrize("most", range(1, len(ANSWER) + 2))
def test_an_answer_that_is_cut_says_so_and_is_a_beginning_of_the_whole(most):
    home = Home(ANSWER)
    home.ask(shape=SHAPE, max_tokens=most)
    home.run()
    assert home.said() == ANSWER[:most]
    assert home.done().reason == ("stop" if most >= len(ANSWER) else "length")
    assert home.done().completion_tokens == min(most, len(ANSWER))


@pytest.mark.parametrize("context", range(10, 36))
def test_an_answer_that_the_context_cuts_is_never_called_complete(context):
    home = Home(ANSWER, context=context)
    home.ask(shape=SHAPE)
    home.run()
    assert ANSWER.startswith(home.said())
    assert home.done().reason == ("stop" if home.said() == ANSWER else "length")
    assert (home.said() == ANSWER) == (context >= len("question") + len(ANSWER))


def test_a_stop_text_ends_an_answer_also_where_it_is_forced():
    for stop, said in (('"on"', '{"room":"hall",'), ("room", '{"'), ("all", '{"room":"h')):
        home = Home(ANSWER)
        home.ask(shape=SHAPE, stop=(stop,))
        home.run()
        assert (home.said(), home.done().reason) == (said, "stop")


@pytest.mark.parametrize("sampling", [Sampling(ignore_eos=True), Sampling(min_tokens=200)])
def test_an_answer_that_is_whole_ends_whatever_asks_for_more(sampling):
    home = Home(ANSWER)
    for number, shape in enumerate((SHAPE, Shape("regex", "[a-z]+;"), Shape("choice", '["yes", "no"]'))):
        home.ask(number, shape=shape, sampling=sampling)
        home.run()
        assert home.done(number).reason == "stop"


def test_there_is_a_logprob_for_each_token_in_order_and_forced_ones_were_certain():
    home = Home(ANSWER)
    for number in (1, 2):  # the second one is guessed
        home.ask(number, shape=SHAPE, sampling=Sampling(logprobs=1))
        home.run()
        logprobs = home.logprobs(number)
        assert b"".join(one.chosen.piece for one in logprobs).decode() == home.said(number) == ANSWER
        chosen = [place for place, one in enumerate(logprobs) if one.chosen.logprob]
        assert chosen == [ANSWER.index("h"), ANSWER.index("t")]
        assert home.done(number).steered.forced == len(ANSWER) - len(chosen)


# guesses and others


def test_guesses_are_cut_where_the_shape_forbids_them_and_nothing_else_is_said():
    said = {}
    for speculates in (True, False):
        home = Home('{"room":"kids","on":false} and more, and more', speculates=speculates)
        home.ask(1)  # others have been answered with what the shape forbids
        home.run()
        for number in range(2, 6):
            home.ask(number, shape=SHAPE)
            home.run()
        said[speculates] = [home.said(number) for number in range(1, 6)]
        assert all(home.done(number).reason == "stop" for number in range(1, 6))
    assert said[True] == said[False]
    assert said[True][1:] == ['{"room":"kids","on":false}'] * 4


def test_guesses_that_the_shape_allows_are_taken():
    text = Shape("regex", "(the light in the hall is (on|off), and )*END")
    free = Shape("regex", "[a-z, ]*END")
    for shape in (text, free):
        batches, sampled = {}, {}
        for speculates in (True, False):
            home = Home("the light in the hall is on, and " * 6 + "END", speculates=speculates)
            for number in (1, 2):
                home.backend.decodes.clear()
                home.ask(number, shape=shape)
                home.run()
                assert home.said(number) == "the light in the hall is on, and " * 6 + "END"
            batches[speculates] = len(home.backend.decodes)
            sampled[speculates] = home.done(2).steered.masks
        assert sampled[True] == sampled[False], (
            "a forced token that was guessed is not sampled: it uses no random number"
        )
        assert batches[True] <= batches[False]
    assert batches[True] < batches[False] / 2


def test_several_answers_of_one_shape_do_not_mix():
    script = {"a": '{"room":"hall","on":true}', "b": '{"room":"kids","on":false}', "c": '{"room":"kitchen","on":true}'}
    home = Home("", batch=16)
    home.backend.script = lambda prompt: script[prompt[-1]]
    for number, letter in enumerate("abcabc"):
        home.ask(number, f"question {letter}", shape=SHAPE, max_tokens=100)
    home.ask(6, "question a", max_tokens=10)
    home.run()
    for number, letter in enumerate("abcabc"):
        assert (home.said(number), home.done(number).reason) == (script[letter], "stop")
    assert home.said(6) == script["a"][:10]


class FewCells(FakeCells):
    """There is no memory for more cells than these."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.room = 90


def test_an_answer_that_gives_its_place_away_goes_on_in_its_shape():
    text = "the light in the hall is on; "
    home = Home(text * 2 + "END", cells=FewCells, speculates=False, host_tier_cells=0, spare=0)
    put_back = []
    give_way = home.engine._places.put_back
    home.engine._places.put_back = lambda one: (put_back.append(one.generated), give_way(one))
    for name in ("put_back_for_lack_of_cells",):
        lack = getattr(home.engine._places, name)
        setattr(home.engine._places, name, lambda one, lack=lack: (put_back.append(one.generated), lack(one)))
    for number, priority in ((1, "background"), (2, "interactive"), (3, "interactive")):
        home.ask(number, f"{number}" * 20, shape=Shape("regex", "(the light in the (hall|kitchen) is (on|off); )*END"),
                 priority=priority)  # fmt: skip
        for _ in range(4):
            home.step()
    home.run()
    assert any(put_back), "one had to give way in the middle of its answer"
    for number in (1, 2, 3):
        assert (home.said(number), home.done(number).reason) == (text * 2 + "END", "stop")


def test_an_answer_with_a_shape_can_be_aborted_anywhere():
    for steps in range(4):
        home = Home(ANSWER, speculates=False)
        home.learn(SHAPE)
        home.ask(shape=SHAPE)
        for _ in range(steps):
            home.step()
        home.engine.abort(Abort(1))
        home.run()
        assert home.engine.open_cells == 0


# shapes that are wrong, or new


def test_a_shape_that_cannot_be_kept_is_refused_and_holds_nothing():
    home = Home(ANSWER)
    for number in (1, 2):  # once new, once known
        home.ask(number, shape=IMPOSSIBLE)
        home.run()
        assert home.failed(number).code == "bad_shape"
        assert "thing" in home.failed(number).detail
    home.ask(3, shape=SHAPE)
    home.run()
    assert home.said(3) == ANSWER


def test_a_tool_that_cannot_be_kept_is_refused_only_if_it_must_be_called():
    tools = Shape("calls", json.dumps([["lamp", {"type": "thing"}]]))
    call = '<tool_call>\n{"name": "lamp", "arguments": {"room": 7}}\n</tool_call>'
    home = Home(call)
    for number in (1, 2):
        home.ask(number, calls=CALL, call_shape=tools, requires_call=True)
        home.run()
        assert home.failed(number).code == "bad_call_shape"
    home.ask(3, calls=CALL, call_shape=tools)
    home.run()
    assert home.said(3) == call and home.done(3).reason == "stop"


def test_only_the_tool_that_cannot_be_kept_is_free():
    tools = Shape("calls", json.dumps([["lamp", LAMP], ["broken", {"type": "object", "patternProperties": {"(": {}}}]]))
    home = Home('<tool_call>\n{"name": "lamp", "arguments": {"room": 7}}\n</tool_call>')
    home.ask(1, calls=CALL, call_shape=tools)
    home.run()
    call = json.loads(home.said(1).removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert validates(json.dumps(call["arguments"]))
    free = '<tool_call>\n{"name": "broken", "arguments": {"room": 7}}\n</tool_call>'
    home = Home(free)
    home.ask(2, calls=CALL, call_shape=tools)
    home.run()
    assert home.said(2) == free


def test_a_strict_tool_whose_schema_only_the_engine_can_refuse_refuses_the_request_and_no_other_tool_does():
    broken = {"type": "object", "patternProperties": {"(": {}}}
    tools = Shape("calls", json.dumps([["lamp", LAMP], ["broken", broken]]))
    home = Home("hi")
    for number in (1, 2):  # once new, once known
        home.ask(number, calls=CALL, call_shape=tools, strict_calls=("broken",))
        home.run()
        assert home.failed(number).code == "bad_call_shape" and "broken: " in home.failed(number).detail
    home.ask(3, calls=CALL, call_shape=tools, strict_calls=("lamp",))
    home.run()
    assert home.said(3) == "hi"


def test_of_two_shapes_the_one_that_cannot_be_kept_is_named():
    home, tools = Home(ANSWER), Shape("calls", json.dumps([["lamp", {"type": "thing"}]]))
    for number in (1, 2):  # once new, once known
        home.ask(number, shape=SHAPE, calls=CALL, call_shape=tools, requires_call=True)
        home.run()
        assert home.failed(number).code == "bad_call_shape"
    home.ask(3, shape=IMPOSSIBLE, calls=CALL, call_shape=tools, requires_call=True)
    home.run()
    assert home.failed(3).code == "bad_shape"


def test_a_tool_that_cannot_be_kept_is_warned_of_once_and_then_known(caplog):
    home, tools = Home("hi"), Shape("calls", json.dumps([["lamp", {"type": "thing"}]]))
    for number in (1, 2, 3):
        home.ask(number, calls=CALL, call_shape=tools)
        home.run()
        assert home.said(number) == "hi"
    warnings = [one for one in caplog.records if one.levelname == "WARNING"]
    assert ["calls of lamp are held to no schema" in one.getMessage() for one in warnings] == [True]


class SlowCompiler(Compiler):
    """Compiles a new shape when it may, and notes in which thread."""

    def __init__(self, backend: FakeBackend) -> None:
        super().__init__(byte_tokenizer, backend.vocabulary.size, backend.vocabulary.ends)
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self.threads: list[str] = []

    def _compile(self, shape):
        self.threads.append(threading.current_thread().name)
        self.begun.set()
        assert self.may_go_on.wait(10)
        return super()._compile(shape)


def test_streams_and_known_shapes_go_on_while_a_new_shape_is_compiled():
    home = Home(ANSWER)
    home.learn(SHAPE)
    slow = SlowCompiler(home.backend)
    slow._compiled |= home.backend.shapes._compiled
    home.backend.shapes = home.engine._tokenizing._shapes = slow
    home.ask(1, shape=Shape("regex", "[a-z]{3}"))
    assert slow.begun.wait(10)
    home.ask(2, "stream")
    home.ask(3, "known", shape=SHAPE)
    home.ask(4, "also new", shape=Shape("choice", '["on", "off"]'))
    while not all(any(isinstance(one, Done) and one.id == number for one in home.events) for number in (2, 3)):
        home.step()
    assert home.said(2) == home.said(3) == ANSWER
    assert home.engine.waits and not home.said(1)
    slow.may_go_on.set()
    home.run()
    assert (len(home.said(1)), home.said(4)) == (3, "off")
    assert set(slow.threads) == {"tokenizing"}


def test_more_new_shapes_than_are_kept_are_never_compiled_by_the_engine_s_thread():
    home = Home("x")
    slow = SlowCompiler(home.backend)
    slow.may_go_on.set()
    home.backend.shapes = home.engine._tokenizing._shapes = slow
    for number in range(40):
        home.ask(number, shape=Shape("choice", json.dumps([f"word {number}"])))
    while len(slow.threads) < 40:
        home.step()
    home.run()
    assert [home.said(number) for number in range(40)] == [f"word {number}" for number in range(40)]
    assert set(slow.threads) == {"tokenizing"} and len(slow.threads) == 40


@pytest.mark.parametrize("gone", [False, True])
def test_a_compilation_that_does_not_end_is_refused_and_holds_up_no_other_shape(gone):
    home = Home("abc")
    slow = home.backend.shapes = home.engine._tokenizing._shapes = SlowCompiler(home.backend)
    home.ask(1, shape=Shape("regex", "[a-z]+"))
    assert slow.begun.wait(10)
    if gone:
        home.engine.abort(Abort(1))
    home.ask(2, shape=Shape("regex", "[a-z]{2}"))
    while not home.engine.hung:  # each look at the clock is a thousandth of a second later
        home.step()
    slow.may_go_on.set()
    home.run()
    assert home.said(2) == "ab" and home.engine.hung
    if not gone:
        assert home.failed(1).code == "bad_shape" and "longer than 10 s" in home.failed(1).detail


def test_a_request_can_be_aborted_while_its_shape_is_compiled():
    home = Home("abc")
    slow = home.backend.shapes = home.engine._tokenizing._shapes = SlowCompiler(home.backend)
    home.ask(1, shape=Shape("regex", "[a-z]+"))
    assert slow.begun.wait(10)
    home.engine.abort(Abort(1))
    assert not home.engine.busy
    slow.may_go_on.set()
    home.ask(2, shape=Shape("regex", "[a-z]{2}"))
    home.run()
    assert home.said(2) == "ab" and not home.said(1)


class Brittle(Constraint):
    """Becomes too complex after some masks, or some tokens."""

    def __init__(self, inner: Constraint, masks: int, tokens: int) -> None:
        super().__init__(inner._matcher, inner._size, inner._ends)
        self.masks, self.tokens = masks, tokens

    def allowed(self):
        self.masks -= 1
        if self.masks < 0:
            raise ShapeError("too many items")
        return super().allowed()

    def accept(self, token):
        self.tokens -= 1
        if self.tokens < 0:
            raise ShapeError("too many items")
        super().accept(token)


@pytest.mark.parametrize(("masks", "tokens"), [(0, 99), (3, 99), (99, 0), (99, 3)])
@pytest.mark.parametrize("logprobs", [None, 1])
def test_a_shape_that_becomes_too_complex_ends_the_answer_as_cut_and_says_why(masks, tokens, logprobs):
    home = Home("abcdef", speculates=False)
    compiled = home.backend.shapes.compile

    def brittle(shape):
        return Brittle(compiled(shape), masks, tokens)

    home.backend.shapes.compile = brittle
    home.ask(shape=Shape("regex", "[a-z]*"), sampling=Sampling(logprobs=logprobs))
    home.ask(2, "stream")
    home.run()
    done = home.done()
    assert (done.reason, done.stopped_by) == ("length", "shape")
    assert "abcdef".startswith(home.said()) and done.completion_tokens == len(home.said()) == min(masks, tokens + 1)
    assert len(home.logprobs()) == (done.completion_tokens if logprobs else 0)
    assert home.said(2) == "abcdef"


def test_only_the_first_shape_makes_the_engine_read_the_vocabulary_which_takes_memory():
    home, made = Home(ANSWER), []
    size = home.backend.vocabulary.size
    compiler = Compiler(lambda: made.append(None) or byte_tokenizer(), size, (END,))
    home.backend.shapes = home.engine._tokenizing._shapes = compiler
    home.engine.tidy()
    assert made == []
    home.ask(shape=SHAPE)
    home.run()
    assert home.said() == ANSWER and len(made) == 1


# thinking, calls and loops


def test_the_shape_begins_behind_the_thinking_which_is_opened_for_it():
    home = Home("<think>\nhm, hm</think>\n\n" + ANSWER)
    for number, budget in ((1, None), (2, 4), (3, 0)):
        home.ask(number, shape=SHAPE, reasoning=THINK, thinking_budget=budget)
        home.run()
        parts = [part for one in home.events if isinstance(one, Tokens) and one.id == number for part in one.parts]
        answer = "".join(part.text for part in parts if part.region == "answer").strip()
        assert validates(answer)
        assert home.done(number).reason == "stop"
        assert home.done(number).reasoning_tokens > 0


def test_a_model_that_would_end_its_turn_while_it_thinks_answers_all_the_same():
    home = Home("")
    home.ask(shape=SHAPE, reasoning=THINK, thinking_budget=3)
    home.run()
    assert json.loads(home.said().rpartition("</think>")[2])


def test_a_required_call_is_made_and_ends_with_its_marker():
    home = Home("I would rather not.")
    home.ask(calls=CALL, call_shape=TOOLS, requires_call=True, parallel_calls=False)
    home.run()
    body = home.said().removeprefix("<tool_call>").removesuffix("</tool_call>")
    assert json.loads(body)["name"] == "lamp" and json.loads(body)["arguments"].keys() == {"room", "on"}
    assert home.done().reason == "stop"


def test_a_text_that_repeats_itself_is_ended():
    home = Home("again and " * 100)
    home.ask(stops_loops=True)
    home.ask(2, stops_loops=False, max_tokens=500)
    home.run()
    assert (home.done().reason, home.done().stopped_by) == ("stop", "loop")
    assert len(home.said()) < 150
    assert (home.done(2).reason, home.done(2).stopped_by, len(home.said(2))) == ("length", "", 500)
