"""A cache that cannot grow for lack of memory loses nobody: it serves as a smaller one, until there is memory again."""

from functools import partial

import pytest

from qwen_edge.engine.loop import Engine
from qwen_edge.protocol.messages import Done, Failed, Sampling, Segment, Submit, Tokens, Warm
from tests.fakes import FakeBackend, FakeCells


class ShortOfMemory(FakeCells):
    """A cache that grows by 64 cells, up to as many as there is memory for."""

    def __init__(self, *sizes: int, room: int, most: int, **options) -> None:
        super().__init__(*sizes, **options)
        self.room, self.most, self.tries = room, most, 0

    def make_room(self, cells: int) -> bool:
        while self.room < cells and self.room + 64 <= self.most:
            self.room += 64
        self.tries += self.room < cells
        return self.room >= cells

    def write(self, *where) -> None:
        super().write(*where)
        assert self.used <= self.room, "more cells than there is memory for"


class Home:
    def __init__(self, *, room: int, most: int, **options) -> None:
        self.now = 0.0
        cells = partial(ShortOfMemory, room=room, most=most)
        self.backend = FakeBackend(lambda prompt: prompt.upper(), **{"context": 1024, "cells": cells, **options})
        self.engine = Engine(self.backend, lambda: self.now, ahead_per_hour=1e9)
        self.said: dict[int, str] = {}
        self.ends: dict[int, Done | Failed] = {}

    def ask(self, number: int, text: str, most: int = 1000) -> None:
        self.said[number] = ""
        self.engine.submit(Submit(number, (Segment(text),), Sampling(), most, 1e9))

    def run(self) -> None:
        while self.engine.busy:
            self.step()

    def step(self) -> None:
        self.now += 0.01
        for event in self.engine.step():
            if isinstance(event, Tokens):
                self.said[event.id] += event.text
            elif isinstance(event, Done | Failed):
                self.ends[event.id] = event


def test_streams_that_do_not_all_fit_wait_for_each_other_and_say_every_word():
    home = Home(room=64, most=256)
    texts = {number: f"{number}: the quick brown fox and the lazy dog, {number} times" for number in range(1, 5)}
    for number, text in texts.items():
        home.ask(number, text)
    home.run()
    assert home.said == {number: text.upper() for number, text in texts.items()}
    assert {end.reason for end in home.ends.values()} == {"stop"}
    assert home.backend.cells.tries < 5, "every try stops all streams for a moment"


def test_a_stream_goes_on_beside_a_prompt_for_which_there_is_no_memory():
    home = Home(room=64, most=256)
    home.ask(1, "a short question")
    home.step()
    home.ask(2, "x" * 500)
    home.run()
    assert home.said[1] == "A SHORT QUESTION"
    assert (home.ends[2].code, home.said[2]) == ("no_memory", "")
    assert "500 tokens are more than the 256" in home.ends[2].detail


def test_a_prompt_alone_for_which_there_is_no_memory_is_refused_and_the_next_one_answered():
    home = Home(room=64, most=256)
    home.ask(1, "x" * 500)
    home.run()
    assert home.ends[1].code == "no_memory"
    home.ask(2, "hello")
    home.run()
    assert home.said[2] == "HELLO"


def test_an_answer_that_fills_all_the_memory_there_is_ends_as_at_the_end_of_the_context():
    home = Home(room=64, most=128)
    home.ask(1, "y" * 100)
    home.run()
    assert (home.ends[1].reason, home.said[1]) == ("length", "Y" * 29)


def test_when_there_is_memory_again_it_is_used():
    home = Home(room=64, most=128)
    home.ask(1, "z" * 300)
    home.run()
    assert home.ends[1].code == "no_memory"
    home.backend.cells.most = 1024
    home.ask(2, "z" * 300)
    home.run()
    assert home.ends[2].code == "no_memory", "it is not asked for at every step"
    home.now += 10.0
    home.ask(3, "z" * 300)
    home.run()
    assert home.said[3] == "Z" * 300


def test_what_is_computed_ahead_leaves_memory_that_is_short_alone():
    home = Home(room=64, most=128)
    home.ask(1, "hello, ")
    home.run()
    home.engine.warm(Warm((Segment("hello, " + "w" * 400),)))
    while home.engine.prepare():
        pass
    home.ask(2, "hello, again")
    home.run()
    assert home.said[2] == "HELLO, AGAIN"


def test_the_cache_is_told_how_many_requests_run_at_once():
    home = Home(room=1024, most=1024)
    for number in (1, 2, 3):
        home.ask(number, f"question {number}")
    home.run()
    assert max(home.backend.cells.streams) == 3


@pytest.mark.parametrize("most", [128, 192, 320])
def test_a_conversation_of_which_not_all_can_come_back_from_its_copy_is_computed(most):
    home = Home(room=64, most=1024, context=512, host_tier_cells=512)
    home.ask(1, "c" * 200)
    home.run()
    home.backend.cells.room = home.backend.cells.most = most
    home.engine._kv_cache.size = most  # as after a cache that could not grow
    home.ask(2, "d" * (most // 2 - 8), most=4)
    home.run()
    home.ask(3, "c" * (most // 2 - 8), most=4)
    home.run()
    assert home.said == {1: "C" * 200, 2: "DDDD", 3: "CCCC"}
