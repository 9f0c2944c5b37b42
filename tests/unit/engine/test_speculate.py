"""Guesses come from the text so far, are computed where they pay, and change nothing of what is said."""

from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.cost_model import CostModel
from qwen_edge.engine.loop import Engine
from qwen_edge.engine.speculate import Answers, Lookup, guesses_that_pay
from qwen_edge.protocol.messages import Done, Sampling, Segment, Submit, Tokens
from tests.fakes import FakeBackend, ticking


def unmarked(_token: int) -> bool:
    return False


def test_what_followed_before_is_guessed():
    lookup = Lookup(Answers(), 0, unmarked)
    assert lookup.guess([1, 2, 3, 4, 5, 6]) == []
    assert lookup.guess([1, 2, 3, 4, 5, 6, 1, 2, 3]) == [4, 5, 6, 1, 2, 3]


def test_the_rate_follows_what_would_have_been_right_computed_or_not():
    lookup = Lookup(Answers(), 0, unmarked)
    tokens = [1, 2, 3, 4] * 3
    for _ in range(60):
        lookup.guess(tokens)
        tokens.append(tokens[-4])
    assert lookup.rate > 0.95
    for i in range(60):
        lookup.guess(tokens)
        tokens += [9 + i, 1, 2, 3]
    assert lookup.rate < 0.05


@given(st.lists(st.integers(0, 2), max_size=40))
def test_a_guess_stood_behind_the_same_tokens_before(tokens):
    lookup = Lookup(Answers(), 0, unmarked)
    for length in range(len(tokens) + 1):
        guess = lookup.guess(tokens[:length])
        places = [at for at in range(3, length) if tokens[at - 3 : at] == tokens[length - 3 : length]]
        assert bool(guess) == bool(places)
        assert not guess or any(tokens[at:length][:7] == guess for at in places)


def pace_of(start: float, each: float) -> CostModel:
    return CostModel(start, each, 0.0)


def test_guesses_are_computed_only_where_they_pay():
    cheap, dear = pace_of(0.02, 0.001), pace_of(0.001, 0.02)
    assert guesses_that_pay(7, 0.9, 1, 1, 1, cheap) == 7
    assert guesses_that_pay(7, 0.9, 1, 1, 1, dear) == 0
    assert guesses_that_pay(7, 0.02, 1, 1, 1, cheap) == 0
    assert 0 < guesses_that_pay(7, 0.6, 1, 1, 1, pace_of(0.02, 0.006)) < 7
    assert guesses_that_pay(0, 1.0, 1, 1, 1, cheap) == 0


def run(script, speculates: bool, *rounds: list[str], **submit) -> tuple[dict[int, str], list]:
    """What is said to the prompts of the last round, and its batches."""
    backend = FakeBackend(script, batch=64, context=600)
    # a batch takes the same, however long: guesses pay
    engine = Engine(backend, ticking(0.001), speculates=speculates)
    known = counted = 0
    for prompts in rounds:
        backend.decodes.clear()
        for request_id, prompt in enumerate(prompts):
            fields = {"max_tokens": 300, "max_seconds": 1e9, **submit}
            engine.submit(Submit(request_id, (Segment(prompt),), Sampling(logprobs=1), **fields))
        said: dict[int, str] = dict.fromkeys(range(len(prompts)), "")
        while engine.busy:
            for event in engine.step():
                if isinstance(event, Tokens):
                    said[event.id] += event.text
                    known += len(event.logprobs)
                elif isinstance(event, Done):
                    counted += event.completion_tokens
                    said[event.id] += f"|{event.reason} {event.completion_tokens}"
    assert known == counted, "a logprob for every token of an answer, and no more"
    assert engine.open_cells == 0
    assert backend.open_samplers == 0
    return said, backend.decodes


texts = st.text(st.sampled_from("abc"), min_size=1, max_size=60)


@given(st.lists(texts, min_size=1, max_size=6), texts, st.integers(1, 80), st.sampled_from(((), ("ca",), ("aab",))))
def test_speculation_changes_nothing_of_what_is_said(prompts, answer, most, stop):
    def script(prompt: str) -> str:
        return (prompt + answer) * 2

    plain, _ = run(script, False, prompts, max_tokens=most, stop=stop)
    guessed, _ = run(script, True, prompts, max_tokens=most, stop=stop)
    assert guessed == plain


def test_text_that_repeats_itself_takes_far_fewer_steps():
    quoted = "the kitchen light is on, and the hall light is off. "
    said, decodes = run(lambda prompt: quoted * 4, True, [quoted], [quoted])  # the first time teaches the pace
    plain, one_by_one = run(lambda prompt: quoted * 4, False, [quoted], [quoted])
    assert said == plain
    assert len(decodes) < len(one_by_one) / 3


answers = st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=20), max_size=6)


@given(answers)
def test_of_other_answers_what_the_last_two_agree_on_is_guessed_or_else_what_the_last_one_said(answers):
    known = Answers()
    followed: dict[tuple[int, ...], list[list[int]]] = {}
    for answer in answers:
        known.learn(answer, 3)
        for at in range(3, len(answer)):
            followed.setdefault(tuple(answer[at - 3 : at]), []).append(answer[at : at + 7])
    for key, ways in followed.items():
        pairs = list(zip(*ways[-2:], strict=False)) if len(ways) > 1 else []
        agreed = [one for one, other in takewhile(lambda pair: pair[0] == pair[1], pairs)]
        assert known.after([9, *key])[0] == (agreed or ways[-1])
    assert known.after([9, 9, 9])[0] == []


def test_what_was_said_once_is_trusted_for_itself():
    """An answer that is never repeated must not spoil what answers agree on."""
    known = Answers()
    for _ in range(2):
        known.learn([1, 2, 3, 4, 5], 0)
    for number in range(100, 400, 10):
        known.learn([7, 8, 9, number], 0)
        lookup = Lookup(known, 0, unmarked)
        lookup.guess([7, 8, 9])
        lookup.guess([7, 8, 9, number + 1])
    assert known.after([7, 8, 9])[1].value < 0.1
    assert known.after([1, 2, 3])[1].value == 0.5


def test_an_answer_like_the_one_before_takes_far_fewer_steps():
    said, decodes = run(lambda prompt: "the kitchen light is now on, 21.5 degrees", True, ["one?"], ["two?"], ["tri?"])
    plain, one_by_one = run(lambda prompt: "the kitchen light is now on, 21.5 degrees", False, ["tri?"])
    assert said == plain
    assert len(decodes) < len(one_by_one) / 2


def test_what_is_kept_of_other_answers_is_bounded():
    known = Answers()
    for start in range(0, 100_000, 1000):
        known.learn(list(range(start, start + 1000)), 0)
        known.learn([1, 2, 3, 4, 5], 0)
    assert known.after([1, 2, 3])[0] == [4, 5]  # the latest are kept
    assert known.after([5000, 5001, 5002])[0] == []
    assert len(known) <= 4096


def test_the_marks_that_answers_begin_with_are_guessed_with_the_last_slice_of_the_prompt_and_no_word():
    prompts = [[f"{number:02}>>>"] for number in range(30)]  # of which the first ones teach the pace and the rate
    said, decodes = run(lambda prompt: f"\n \n{prompt[0]} is it", True, *prompts)
    plain, one_by_one = run(lambda prompt: f"\n \n{prompt[0]} is it", False, *prompts)
    assert said == plain
    assert decodes[0] == [(1, len("9>>>" + "\n \n"))]
    assert len(one_by_one) - len(decodes) >= len("\n \n")


def test_an_answer_that_begins_with_a_word_is_not_held_up_by_guesses():
    prompts = [[f"{number:02}>>>"] for number in range(30)]
    _, decodes = run(lambda prompt: "the same words", True, *prompts)
    assert decodes[0] == [(1, len("9>>>"))]


def test_guesses_for_one_answer_do_not_hold_up_the_prompt_of_another():
    backend = FakeBackend(lambda prompt: "on and off, " * 20, batch=16, context=800)
    engine = Engine(backend, ticking(0.001))
    engine.submit(Submit(1, (Segment("one"),), Sampling(), 240, 1e9))
    while not any(length > 4 for batch in backend.decodes for position, length in batch if position > 60):
        engine.step()
    backend.decodes.clear()
    engine.submit(Submit(2, (Segment("two" * 50),), Sampling(), 1, 1e9))
    while not any(isinstance(event, Done) and event.id == 2 for event in engine.step()):
        pass
    streams = [batch[0][1] for batch in backend.decodes if len(batch) == 2]
    assert len(streams) >= 10
    assert set(streams) == {1}
    backend.decodes.clear()
    while engine.busy:
        engine.step()
    assert max(length for batch in backend.decodes for _, length in batch) > 4, "they go on when it is answered"
