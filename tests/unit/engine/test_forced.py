"""Tokens that are put into an answer: computed in one batch, told in order, and counted as what was chosen is.

The fake model notices if a token is not in its cell, or is sampled before one that was forced ahead of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.loop import Engine
from qwen_edge.engine.sequence import Running, Sequence
from qwen_edge.protocol.messages import (
    Done,
    Failed,
    Markers,
    Outbound,
    Part,
    Sampling,
    Segment,
    Started,
    Submit,
    Tokens,
)
from tests.fakes import SPECIALS, FakeBackend

THINK = Markers("<think>", "</think>")


class Home:
    """An engine that answers one request, or several; `force` is what comes between two steps."""

    def __init__(self, said: str, **options) -> None:
        self.backend = FakeBackend(lambda prompt: said, **options)
        self.engine = Engine(self.backend)
        self.events: list[Outbound] = []

    def ask(self, prompt: str = "question", number: int = 1, **changes) -> Sequence:
        fields = {"sampling": Sampling(), "max_tokens": 1000, "max_seconds": 60.0, **changes}
        self.engine.submit(Submit(number, (Segment(prompt),), **fields))
        while not any(one.request.id == number for one in self.engine._places.sequences):
            self.events += self.engine.admit()
        return next(one for one in self.engine._places.sequences if one.request.id == number)

    def force(self, sequence: Sequence, text: str) -> None:
        tokens = [SPECIALS[text]] if text in SPECIALS else list(text.encode())
        sequence.force(tokens, self.backend.vocabulary, self.backend.cells.size)

    def step(self) -> None:
        self.events += self.engine.step()

    def until_said(self, text: str, number: int = 1) -> None:
        while self.said(number) != text:
            assert text.startswith(self.said(number))
            self.step()

    def run(self) -> None:
        while self.engine.busy:
            self.step()

    def said(self, number: int = 1) -> str:
        return "".join(one.text for one in self.events if isinstance(one, Tokens) and one.id == number)

    def done(self, number: int = 1) -> Done:
        (end,) = [one for one in self.events if isinstance(one, Done | Failed) and one.id == number]
        assert isinstance(end, Done)
        return end


def test_forced_tokens_are_computed_in_one_batch_with_the_token_before_them():
    home = Home("abcdef", batch=64)
    one = home.ask("question")
    home.until_said("abc")
    home.backend.decodes.clear()
    home.force(one, "12345")
    home.step()
    # c, which was chosen last, and the five; the last one's logits give the next token
    assert home.backend.decodes == [[(len("question") + 2, 6)]]
    assert home.said() == "abc12345d"
    home.run()
    assert home.said() == "abc12345def"
    assert home.done().completion_tokens == len("abc12345def") + 1


def test_forced_text_is_told_before_the_step_that_computes_it():
    home = Home("abc")
    one = home.ask()
    home.until_said("a")
    home.force(one, "12")
    assert home.engine.admit() == [Tokens(1, (Part("answer", "1"), Part("answer", "2")))]


def test_what_is_forced_first_comes_before_the_first_chosen_token_and_is_no_part_of_the_prompt():
    home = Home("abc", batch=4)
    for number, cached in ((1, 0), (2, len("question"))):  # all of it: the last token computed is a forced one
        one = home.ask("question", number)
        home.force(one, "{12}" if number == 1 else "[345]")
        home.run()
        assert home.said(number) == ("{12}abc" if number == 1 else "[345]abc")
        done = home.done(number)
        assert (done.prompt_tokens, done.cached_tokens) == (len("question"), cached)
        assert done.completion_tokens == len(home.said(number)) + 1
        heard = [type(event) for event in home.events if getattr(event, "id", None) == number]
        assert heard.index(Started) < heard.index(Tokens)


def test_an_answer_has_no_more_forced_tokens_than_it_may_have_tokens():
    home = Home("abcdef")
    one = home.ask(max_tokens=4)
    home.until_said("ab")
    home.force(one, "12345")
    home.run()
    assert (home.said(), home.done().reason, home.done().completion_tokens) == ("ab12", "length", 4)
    assert home.backend.open_samplers == 0


def test_an_answer_that_is_forced_beyond_the_context_ends_with_it():
    home = Home("abcdef", context=16)
    one = home.ask("question")
    home.until_said("ab")
    home.force(one, "1" * 40)
    home.run()
    assert (home.said(), home.done().reason) == ("ab" + "1" * 6, "length")


def test_a_stop_text_in_forced_text_ends_the_answer():
    home = Home("abcdef")
    one = home.ask(stop=("b12",))
    while one.generated < 2:
        home.step()
    home.force(one, "12345")
    home.run()
    assert (home.said(), home.done().reason) == ("a", "stop")
    assert home.done().completion_tokens == 4


def test_a_forced_end_of_turn_ends_the_answer():
    home = Home("abcdef")
    one = home.ask()
    home.until_said("ab")
    for text in ("12", "<|im_end|>", "34"):
        home.force(one, text)
    home.run()
    assert (home.said(), home.done().reason, home.done().completion_tokens) == ("ab12", "stop", 5)


def test_a_thinking_block_is_closed_by_force_and_the_answer_follows():
    home = Home("<think>hm hm hm")
    one = home.ask(reasoning=THINK, stop=("\n", "m"))
    home.until_said("<think>hm")
    assert one.output.region == "reasoning"
    home.force(one, "\nEnough.\n")
    home.force(one, "</think>")
    assert one.output.region == "answer"
    home.force(one, "\n\n")
    home.run()
    parts = [part for event in home.events if isinstance(event, Tokens) for part in event.parts]
    assert "".join(part.text for part in parts if part == Part("reasoning", part.text)) == "hm\nEnough."
    assert "".join(part.text for part in parts if part == Part("answer", part.text)) == " h"
    assert home.done().reason == "stop"


@pytest.mark.parametrize("known", [0, 1])
def test_a_forced_token_has_the_logprob_0_in_its_place(known):
    home = Home("abc")
    one = home.ask(sampling=Sampling(logprobs=known))
    home.until_said("ab")
    home.force(one, "12")
    home.run()
    logprobs = [logprob for event in home.events if isinstance(event, Tokens) for logprob in event.logprobs]
    assert [(one.chosen.piece, one.chosen.logprob) for one in logprobs[:5]] == [
        (b"a", -0.5),
        (b"b", -0.5),
        (b"1", 0.0),
        (b"2", 0.0),
        (b"c", -0.5),
    ]
    assert all(len(one.top) == known for one in logprobs)


def test_an_answer_that_gave_way_comes_back_with_its_forced_tokens():
    home = Home("abcdef", context=40, parallel=1)
    one = home.ask("question", priority="background")
    home.until_said("ab")
    home.force(one, "12")
    home.ask("another question", 2)
    while isinstance(one.phase, Running):
        home.step()
    home.force(one, "34")  # while it waits
    home.run()
    assert home.said() == "ab1234cdef"
    assert home.done().completion_tokens == 11


forced = st.lists(st.tuples(st.integers(0, 12), st.text("abc12", min_size=1, max_size=40)), max_size=3)


@given(
    st.text("abc", max_size=12),
    forced,
    st.integers(1, 60),
    st.sampled_from(((), ("ca",), ("1", "bb"))),
    st.booleans(),
    st.sampled_from((4, 16, 64)),
)
def test_wherever_tokens_are_forced_the_answer_is_the_same_as_if_the_model_had_said_all(
    said, forced, most, stop, beside, batch
):
    home = Home(said, batch=batch)
    one = home.ask(max_tokens=most, stop=stop)
    if beside:
        home.ask("something else", 2)
    expected, at = list(said.encode()), 0
    for when, text in sorted(forced):
        while one.generated < when + at and one in home.engine._places.sequences:
            home.step()
        if one not in home.engine._places.sequences or one.generated >= len(expected):
            break
        place = one.generated
        home.force(one, text)
        expected[place:place] = text.encode()
        at += len(text)
    home.run()
    plain = Home(bytes(expected).decode())
    plain.ask(max_tokens=most, stop=stop)
    plain.run()
    assert (home.said(), home.done().reason) == (plain.said(), plain.done().reason)
    assert home.done().completion_tokens == plain.done().completion_tokens
    assert not beside or home.said(2) == said
