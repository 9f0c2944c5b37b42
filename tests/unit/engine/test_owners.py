"""What was asked with one key makes no request with another quicker, and tells it nothing."""

import pytest

from qwen_edge.engine.loop import Engine
from qwen_edge.engine.speculate import Answers
from qwen_edge.protocol.messages import Caller, Done, InspectCache, Sampling, Segment, Submit, Warm
from tests.fakes import FakeBackend

ONE, TWO, BOSS = Caller("one", admin=False), Caller("two", admin=False), Caller("boss", admin=True)
TEXT = "the whole story of the lamp in the kitchen. " * 4


class Home:
    """An engine that answers with the last word of its prompt."""

    def __init__(self, **options) -> None:
        self.backend = FakeBackend(lambda prompt: prompt.split()[-1], **options)
        self.engine = Engine(self.backend, ahead_per_hour=1e9)
        self.number = 0

    def submit(self, caller: Caller, text: str = TEXT, **fields) -> int:
        self.number += 1
        request = Submit(self.number, (Segment(text),), Sampling(), 20, 1e9, caller=caller, **fields)
        self.engine.submit(request)
        return self.number

    def finish(self) -> dict[int, Done]:
        events = []
        while self.engine.busy:
            events += self.engine.step()
        return {event.id: event for event in events if isinstance(event, Done)}

    def ask(self, caller: Caller, text: str = TEXT, **fields) -> Done:
        number = self.submit(caller, text, **fields)
        return self.finish()[number]


def test_a_prompt_is_cached_for_the_key_that_sent_it_and_is_in_the_cache_once():
    home = Home()
    home.ask(ONE)
    used = home.backend.cells.used
    assert home.ask(TWO).cached_tokens == 0
    assert home.backend.cells.used == used
    assert [home.ask(caller).cached_tokens for caller in (ONE, TWO)] == [len(TEXT) - 1] * 2


def test_where_all_share_a_prompt_is_computed_once():
    home = Home()
    home.ask(Caller("one", admin=False, shares=True))
    assert home.ask(Caller("two", admin=False, shares=True)).cached_tokens == len(TEXT) - 1


def test_what_an_admin_pins_with_a_request_is_shared_with_all():
    home = Home()
    home.ask(BOSS, TEXT + "hello", pin_seconds=1000.0)
    assert home.ask(ONE, TEXT + "and what else?").cached_tokens == len(TEXT)
    home = Home()
    home.ask(ONE, TEXT + "hello", pin_seconds=1000.0)
    assert home.ask(TWO, TEXT + "and what else?").cached_tokens == 0


def test_the_same_prompt_of_two_at_once_is_computed_by_each_and_neither_waits():
    home = Home(batch=400)
    numbers = [home.submit(caller) for caller in (ONE, TWO)]
    done = home.finish()
    assert [done[number].cached_tokens for number in numbers] == [0, 0]
    same = Home(batch=400)
    numbers = [same.submit(ONE) for _ in range(2)]
    done = same.finish()
    assert sorted(done[number].cached_tokens for number in numbers) == [0, len(TEXT) - 1]


def test_why_a_prompt_missed_does_not_tell_that_others_have_asked_it():
    home = Home(context=300, host_tier_cells=0)
    home.ask(ONE, conversation="a")
    home.ask(TWO, "something else entirely, " * 10)
    assert home.ask(TWO, conversation="a").missed == "new"
    home.ask(TWO, "something else entirely, " * 10)
    assert home.ask(ONE, conversation="a").missed == "evicted"


def test_answers_of_others_are_not_guessed():
    answers = Answers()
    answers.learn(list(range(20)), 5, "one")
    assert answers.after([5, 6, 7], "one")[0][0] == 8
    assert answers.after([5, 6, 7], "two")[0] == []
    assert answers.after([5, 6, 7], None)[0] == []


def test_what_is_computed_ahead_is_the_keys_whose_conversation_it_is():
    home = Home()
    home.ask(ONE)
    home.engine.warm(Warm((Segment(TEXT + "what comes next"),), ONE))
    while home.engine.prepare():
        pass
    assert home.ask(TWO, TEXT + "what comes next, then").cached_tokens == 0
    assert home.ask(ONE, TEXT + "what comes next, then").cached_tokens == len(TEXT + "what comes next")


@pytest.mark.parametrize("act", [{"forget": True}, {"pin_seconds": 100.0}])
def test_an_entry_of_others_is_not_there_for_a_key_and_is_for_an_admin(act):
    home = Home()
    home.ask(ONE)
    (entry,) = home.engine.inspect(InspectCache(1, caller=BOSS)).conversations
    assert entry.owner == "one"
    assert not home.engine.inspect(InspectCache(2, entry.key, caller=TWO, **act)).found
    (own,) = home.engine.inspect(InspectCache(3, caller=ONE)).conversations
    assert (own.key, own.owner, own.pinned_until) == (entry.key, "", 0.0)
    assert home.engine.inspect(InspectCache(4, entry.key, caller=BOSS, **act)).found


def test_a_pin_of_a_key_is_seen_by_it_and_ended_by_an_admin():
    home = Home()
    home.ask(ONE)
    (entry,) = home.engine.inspect(InspectCache(1, caller=ONE)).conversations
    (entry,) = home.engine.inspect(InspectCache(2, entry.key, pin_seconds=100.0, caller=ONE)).conversations
    assert entry.pinned_until > 0
    (entry,) = home.engine.inspect(InspectCache(3, entry.key, pin_seconds=0.0, caller=BOSS)).conversations
    assert entry.pinned_until == 0
