"""Why a prompt missed: the right reason for whatever became of a conversation, and none where nothing was lost."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.loop import Engine
from qwen_edge.engine.misses import Miss, Misses, first_message, prompt_of
from qwen_edge.protocol.messages import Abort, Done, MissReason, Sampling, Segment, Submit, Warm
from tests.fakes import FakeBackend

START, END, SYSTEM, USER, ASSISTANT, THINK = 1, 2, 3, 4, 5, 6
LONG, SHORT = 60, 5


def text(number: int, length: int = LONG) -> list[int]:
    """A text that has no token in common with that of any other number."""
    return [1000 * (number + 1) + i for i in range(length)]


def prompt(system: list[int], *turns: list[int], name: str = ""):
    """Messages as a template of Qwen's shape shows them, users' and assistant's in turn; then the answer is opened."""
    tokens = [START, SYSTEM, *system, END] if system else []
    head = len(tokens)
    for i, turn in enumerate(turns):
        tokens += [START, ASSISTANT if i % 2 else USER, *turn, END]
        head = head or len(tokens)
    return prompt_of([*tokens, START, ASSISTANT, THINK, THINK], name, head)


class Cache:
    """An engine's cache and memory as they should be: everything stays, until it is told to forget."""

    def __init__(self) -> None:
        self.misses = Misses()
        self.held: list[list[int]] = []

    def cached(self, asked) -> int:
        tokens = list(asked.tokens)
        return max((shared(held, tokens[:-1]) for held in self.held), default=0)

    def ask(self, asked) -> Miss | None:
        miss = self.misses.explain(asked, self.cached(asked))
        self.misses.remember(asked)
        self.held.append(list(asked.tokens))
        return miss

    def ahead(self, asked, answer: list[int]) -> None:
        """The history that follows from a prompt and its answer is computed."""
        tokens = [*asked.tokens[: asked.history], START, ASSISTANT, *answer, END, START, USER]
        self.misses.remember_ahead(tokens)
        self.held.append(tokens)


def shared(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_the_reasons_are_those_that_the_documentation_lists():
    page = (Path(__file__).parents[3] / "docs/api.md").read_text()
    section = page[page.index("### Why a prompt missed") :]
    assert set(re.findall(r"^\| `(\w+)` \| [A-Z]", section, re.MULTILINE)) == set(get_args(MissReason))
    assert set(re.findall(r'prefix_misses_total{reason="(\w+)"}', page)) == set(get_args(MissReason))


SYS, Q1, A1, Q2, A2, Q3 = (text(number) for number in range(6))


def test_a_first_prompt_is_new():
    assert Cache().ask(prompt(SYS, Q1)) == Miss("new", 0)


def test_a_prompt_with_nothing_but_the_system_prompt_in_common_is_new_behind_it():
    cache = Cache()
    cache.ask(prompt(SYS, Q1))
    second = prompt(SYS, Q2)
    assert cache.ask(second) == Miss("new", second.head + 2)


def test_a_conversation_that_goes_on_is_no_miss_whether_its_answer_was_computed_ahead_or_not():
    for ahead in (True, False):
        cache = Cache()
        cache.ask(prompt(SYS, Q1))
        if ahead:
            cache.ahead(prompt(SYS, Q1), A1)
        assert cache.ask(prompt(SYS, Q1, A1, Q2)) is None
        assert cache.ask(prompt(SYS, Q1, A1, Q2)) is None, "asked once more"
        assert cache.ask(prompt(SYS, Q1)) is None, "from an earlier place"


def test_a_conversation_without_a_system_prompt_goes_on_too():
    cache = Cache()
    assert cache.ask(prompt([], Q1)) == Miss("new", 0)
    assert cache.ask(prompt([], Q1, A1, Q2)) is None
    assert cache.ask(prompt([], Q3)) == Miss("new", 2)


def test_an_edited_history_has_changed_and_the_place_is_told():
    cache = Cache()
    cache.ask(prompt(SYS, Q1, A1, Q2))
    edited = prompt(SYS, Q1, text(9) + A1, Q2, A2, Q3)
    assert cache.ask(edited) == Miss("changed", edited.borders[1] + 2)


def test_an_answer_that_comes_back_otherwise_than_it_was_given_is_a_change():
    cache = Cache()
    cache.ask(prompt(SYS, Q1))
    cache.ahead(prompt(SYS, Q1), A1)
    edited = prompt(SYS, Q1, A1[:20] + text(9), Q2)
    assert cache.ask(edited) == Miss("changed", edited.borders[1] + 2 + 20)


def test_a_history_without_its_oldest_messages_has_changed():
    cache = Cache()
    cache.ask(prompt(SYS, Q1, A1, Q2))
    trimmed = prompt(SYS, Q2, A2, Q3)
    assert cache.ask(trimmed) == Miss("changed", trimmed.head + 2)
    cache = Cache()
    cache.ask(prompt([], Q1, A1, Q2))
    assert cache.ask(prompt([], Q2, A2, Q3)) == Miss("changed", 2)


def test_another_question_behind_the_same_examples_is_no_miss():
    cache = Cache()
    cache.ask(prompt(SYS, Q1, A1, Q2))
    assert cache.ask(prompt(SYS, Q1, A1, Q3)) is None


def test_a_clock_before_a_long_system_prompt_is_a_change():
    cache = Cache()
    cache.ask(prompt([*text(7, 3), *SYS], Q1))
    assert cache.ask(prompt([*text(8, 3), *SYS], Q2)) == Miss("changed", 2)


def test_a_state_at_the_end_of_the_system_prompt_is_a_change_where_a_conversation_goes_on():
    cache = Cache()
    cache.ask(prompt([*SYS, *text(7)], Q1))
    assert cache.ask(prompt([*SYS, *text(8)], Q1, A1, Q2)) == Miss("changed", 2 + LONG)


def test_another_system_prompt_is_a_new_conversation():
    cache = Cache()
    cache.ask(prompt(SYS, Q1))
    assert cache.ask(prompt(text(7), Q2)) == Miss("new", 2)
    assert cache.ask(prompt([*text(8), *text(7, 20)], Q3)) == Miss("new", 2), "a phrase in common"


def test_other_tools_before_the_system_prompt_are_a_change():
    cache = Cache()
    cache.ask(prompt([*text(7), *SYS], Q1))
    assert cache.ask(prompt([*text(8), *SYS], Q1, A1, Q2)) == Miss("changed", 2)


def test_several_states_between_the_parts_of_a_system_prompt_are_a_change():
    rules = [text(number, 50) for number in range(30, 34)]

    def system(time: int) -> list[int]:
        return [token for i, rule in enumerate(rules) for token in (*text(time + i, SHORT), *rule)]

    cache = Cache()
    cache.ask(prompt(system(40), Q1))
    assert cache.ask(prompt(system(50), Q2)) == Miss("changed", 2)


def test_a_short_message_that_recurs_is_no_sign_of_the_same_conversation():
    cache = Cache()
    hello = text(11, SHORT)
    cache.ask(prompt(text(7), hello, A1, Q1))
    assert cache.ask(prompt(text(8), hello, A2, Q2)) == Miss("new", 2)


def test_what_was_computed_before_and_is_not_there_was_evicted():
    cache = Cache()
    cache.ask(prompt(SYS, Q1))
    cache.held = [held[: 2 + LONG] for held in cache.held]
    assert cache.ask(prompt(SYS, Q1, A1, Q2)) == Miss("evicted", 2 + LONG)


def test_a_handful_of_tokens_is_not_worth_a_word():
    cache = Cache()
    cache.ask(prompt(SYS, Q1))
    cache.ahead(prompt(SYS, Q1), [*A1, 99])
    assert cache.ask(prompt(SYS, Q1, A1, Q2)) is None, "an answer stripped of its last token"
    cache.held = [held[:-10] for held in cache.held]
    assert cache.ask(prompt(SYS, Q1, A1, Q2)) is None


def test_a_name_tells_which_of_many_conversations_has_changed():
    cache = Cache()
    cache.ask(prompt([*SYS, *text(7, SHORT)], Q1, name="mine"))
    for number in range(20, 40):
        cache.ask(prompt([*SYS, *text(8, SHORT)], text(number), name=f"of {number}"))
    cache.ask(prompt([*SYS, *text(9, SHORT)], Q3, A1, name="another's"))
    renamed = prompt([*SYS, *text(10, SHORT)], Q1, A1, Q2, name="nobody's yet")
    assert cache.misses.explain(renamed, cache.cached(renamed)) == Miss("new", 2 + LONG)
    assert cache.ask(prompt([*SYS, *text(10, SHORT)], Q1, A1, Q2, name="mine")) == Miss("changed", 2 + LONG)


def test_a_named_conversation_with_another_system_prompt_has_changed_even_where_no_text_comes_back():
    for name, reason in (("mine", "changed"), ("", "new")):
        cache = Cache()
        cache.ask(prompt(text(7), Q1, name=name))
        assert cache.ask(prompt(text(8), Q2, name=name)) == Miss(reason, 2)


def test_a_named_conversation_that_begins_anew_behind_its_system_prompt_has_lost_nothing():
    cache = Cache()
    cache.ask(prompt(SYS, Q1, A1, Q2, name="mine"))
    assert cache.ask(prompt(SYS, Q3, name="mine")) is None


def test_no_more_prompts_are_remembered_than_said_and_of_one_conversation_only_the_latest():
    misses = Misses(most=3)
    for number in range(20, 30):
        misses.remember(prompt(SYS, text(number)))
        assert len(misses) == min(3, number - 19)
    misses = Misses()
    for turns in ((Q1,), (Q1, A1, Q2), (Q1, A1, Q2, A2, Q3)):
        misses.remember(prompt(SYS, *turns))
        misses.remember_ahead(list(prompt(SYS, *turns).tokens[:-2]))
        assert len(misses) == 1


def test_what_was_computed_ahead_of_nothing_that_is_known_is_not_remembered():
    misses = Misses()
    misses.remember(prompt(SYS, Q1))
    misses.remember_ahead([START, SYSTEM, *Q2])
    assert len(misses) == 1


def test_the_first_message_ends_where_the_second_begins():
    mark, end = Segment("<|im_start|>", True), Segment("<|im_end|>", True)
    segments = (mark, Segment("system\nBe brief."), end, Segment("\n"), mark, Segment("user\nHi"))
    tokens = FakeBackend(str).vocabulary.tokenize(segments)
    assert first_message(segments, tokens) == len("system\nBe brief.\n") + 2
    assert first_message((Segment("plain"),), [1, 1]) == 0
    assert first_message(segments[:2], tokens[:3]) == 0
    assert first_message((), []) == 0


@dataclass
class Talk:
    """A conversation as a client keeps it. `at` is where it differs from what the engine knows of it, and how."""

    name: str
    clock: int
    turns: list[list[int]] = field(default_factory=list)


changes = st.lists(
    st.tuples(st.sampled_from(("grow", "again", "edit", "restart", "clock", "evict")), st.integers(0, 99)), max_size=30
)


@given(st.integers(1, 3), st.booleans(), st.booleans(), changes)
def test_whatever_becomes_of_conversations_the_reason_is_told(count, named, ahead, plan):
    fresh = iter(range(100, 100_000))
    cache, talks = Cache(), [Talk(f"talk {i}" if named else "", next(fresh)) for i in range(count)]
    constant = text(0)

    def asked(talk: Talk):
        return prompt([*text(talk.clock, 3), *constant], *talk.turns, name=talk.name)

    def ask(talk: Talk) -> str:
        miss = cache.ask(asked(talk))
        if ahead:
            cache.ahead(asked(talk), text(talk.clock + 500_000 + len(talk.turns)))
        return miss.reason if miss else ""

    for number, talk in enumerate(talks):
        talk.clock = talks[0].clock
        talk.turns = [text(next(fresh))]
        assert ask(talk) == "new", number

    for kind, value in plan:
        talk = talks[value % count]
        if kind in ("grow", "clock", "evict"):
            answer = text(talk.clock + 500_000 + len(talk.turns)) if ahead else text(next(fresh))
            talk.turns = [*talk.turns, answer, text(next(fresh))]
        expected = {"grow": "", "again": ""}.get(kind, kind)
        if kind == "edit":
            place = value % len(talk.turns)
            talk.turns = [*talk.turns[:place], text(next(fresh)), *talk.turns[place + 1 :]]
            # the question itself may be another one: what was said before it is as it was
            expected = "changed" if place < len(talk.turns) - 1 else "" if len(talk.turns) > 1 or named else "new"
        elif kind == "restart":
            talk.turns = [text(next(fresh))]
            expected = "" if named else "new"
        elif kind == "clock":
            talk.clock = next(fresh)
            expected = "changed"
        elif kind == "evict":
            cache.held.clear()
            expected = "evicted"
        assert ask(talk) == expected, (kind, talk)
        if kind == "evict":
            assert all(ask(other) == "evicted" for other in talks if other is not talk)


anything = st.lists(st.integers(1, 4), min_size=1, max_size=60)


@given(st.lists(st.tuples(anything, st.sampled_from(("", "a")), st.integers(0, 60), st.booleans()), max_size=12))
def test_whatever_is_asked_the_place_is_where_the_cache_ended_and_nothing_is_evicted_that_was_not_there(prompts):
    misses, computed = Misses(most=8), []
    for tokens, name, cached, ahead in prompts:
        there = min(cached, len(tokens) - 1)
        head = tokens.index(tokens[0], 1) if tokens[0] in tokens[1:] else 0
        asked = prompt_of(tokens, name, head)
        miss = misses.explain(asked, there)
        assert miss is None or miss.position == there
        if miss and miss.reason == "evicted":
            assert max(shared(one, tokens) for one in computed) > there
        if ahead:
            misses.remember_ahead(tokens)
        else:
            misses.remember(asked)
        computed.append(tokens)


def submit(request_id: int, *messages: str, **changes) -> Submit:
    segments = [Segment("<|im_start|>", True)]
    for message in (*messages, "assistant\n"):
        segments += [Segment(message), Segment("<|im_end|>", True), Segment("<|im_start|>", True)]
    return Submit(request_id, tuple(segments[:-2]), Sampling(), **{"max_tokens": 1000, "max_seconds": 1e9, **changes})


def run(engine: Engine) -> dict[int, tuple[str, int]]:
    ends = {}
    while engine.busy:
        ends |= {event.id: (event.missed, event.missed_at) for event in engine.step() if isinstance(event, Done)}
    return ends


def test_the_engine_tells_why_with_the_end_of_an_answer():
    engine = Engine(FakeBackend(lambda prompt: "yes", parallel=2))
    engine.submit(submit(1, "system: be brief", "user: a question"))
    assert run(engine) == {1: ("new", 0)}
    engine.submit(submit(2, "system: be brief", "user: a question", "assistant\nyes", "user: and now?"))
    assert run(engine) == {2: ("", 0)}


def test_prompts_that_are_computed_side_by_side_miss_once():
    engine = Engine(FakeBackend(lambda prompt: "yes", parallel=4))
    for number in range(4):
        engine.submit(submit(number, "system: be brief", "user: a question"))
    reasons = run(engine)
    assert sorted(reason for reason, _ in reasons.values()) == ["", "", "", "new"]


def test_a_prompt_that_gave_way_and_came_back_missed_for_the_first_reason():
    backend = FakeBackend(lambda prompt: "a long answer to it", parallel=1)
    engine = Engine(backend)
    engine.submit(submit(1, "user: something that can wait", priority="idle"))
    for _ in range(5):
        engine.step()
    engine.submit(submit(2, "user: something else", priority="interactive"))
    assert run(engine) == {1: ("new", 0), 2: ("new", len("_user: something "))} | {2: run_alone()}


def run_alone() -> tuple[str, int]:
    engine = Engine(FakeBackend(lambda prompt: "a long answer to it", parallel=1))
    engine.submit(submit(1, "user: something that can wait"))
    run(engine)
    engine.submit(submit(2, "user: something else"))
    return run(engine)[2]


def test_a_prompt_that_was_broken_off_is_not_taken_for_one_that_was_there():
    engine = Engine(FakeBackend(lambda prompt: "yes", batch=8))
    engine.submit(submit(1, "user: " + "a long question " * 10))
    engine.step()
    engine.abort(Abort(1))
    run(engine)
    engine.submit(submit(2, "user: " + "a long question " * 10))
    assert run(engine) == {2: ("new", 8)}


def test_what_was_computed_ahead_and_had_to_go_is_told():
    backend = FakeBackend(lambda prompt: "yes", context=400)
    backend.cells.host_tier_cells = 0
    engine = Engine(backend, ahead_per_hour=float("inf"))
    question, answer = "user: " + "q" * 60, "assistant\n" + "a" * 100
    engine.submit(submit(1, question))
    run(engine)
    history = submit(0, question, answer).prompt[:-2]
    engine.warm(Warm(history))
    while engine.prepare():
        pass
    engine.submit(submit(2, question, answer, "user: more"))
    assert run(engine)[2] == ("", 0)
    engine.submit(submit(3, "user: " + "x" * 350))
    assert run(engine)[3][0] == "new"
    engine.submit(submit(4, question, answer, "user: other"))
    reason, at = run(engine)[4]
    assert reason == "evicted"
    assert at < len(question)
