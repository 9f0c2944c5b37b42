"""Who waits for whom: told by the engine over a fake model whose batches take time on a fake clock."""

from collections import defaultdict
from itertools import pairwise

import pytest

from qwen_edge.engine.loop import Engine
from qwen_edge.protocol.messages import Done, Failed, Sampling, Segment, Submit, Tokens
from tests.fakes import FakeBackend


class Home:
    """An engine on a device that takes 20 ms for a batch and 10 ms for each token in it."""

    def __init__(self, *, answer: int = 10, **options) -> None:
        self.now = 0.0
        self.backend = _Timed(self, lambda prompt: "x" * answer, **{"context": 8192, "batch": 128, **options})
        self.engine = Engine(self.backend, lambda: self.now)
        self.said: dict[int, list[float]] = defaultdict(list)  # when each piece of an answer came
        self.ended: dict[int, Done | Failed] = {}
        self.ended_at: dict[int, float] = {}

    def submit(self, request_id: int, text: str, **changes) -> None:
        fields = {"max_tokens": 1000, "max_seconds": 1e6, **changes}
        self.engine.submit(Submit(request_id, (Segment(text),), Sampling(), **fields))

    def step(self) -> None:
        for event in self.engine.step():
            assert not isinstance(event, Tokens) or event.id not in self.ended
            if isinstance(event, Tokens):
                self.said[event.id].append(self.now)
            elif isinstance(event, Done | Failed) and event.id is not None:
                self.ended[event.id], self.ended_at[event.id] = event, self.now

    def run(self, *until: int) -> None:
        """Until these have ended, or all."""
        while self.engine.busy and not (until and set(until) <= set(self.ended)):
            self.step()

    def first(self, request_id: int) -> float:
        return self.said[request_id][0]


class _Timed(FakeBackend):
    def __init__(self, home: Home, script, **options) -> None:
        super().__init__(script, **options)
        self._home, self.token = home, 0.01

    def decode(self, slices) -> None:
        super().decode(slices)
        self._home.now += 0.02 + self.token * sum(len(one.tokens) for one in slices)


def test_no_stream_stalls_while_a_long_prompt_is_computed():
    home = Home(answer=200)
    home.submit(1, "one")
    home.submit(2, "two, another")
    while not home.said[1] or not home.said[2]:
        home.step()
    began = home.now
    home.submit(3, "long " * 480)
    home.run(3)
    gaps = [later - earlier for request_id in (1, 2) for earlier, later in pairwise(home.said[request_id])]
    assert max(gaps) < 0.5
    alone = Home()
    alone.submit(3, "long " * 480)
    alone.run()
    assert home.first(3) - began < 1.3 * alone.first(3)


def test_a_slice_beside_streams_leaves_no_token_that_costs_as_much_as_four():
    home = Home(answer=200)
    for stream in (1, 2, 3):
        home.submit(stream, "some", max_tokens=200)
    while not all(home.said[stream] for stream in (1, 2, 3)):
        home.step()
    home.submit(4, "x" * 500)
    while 4 not in home.said:
        home.step()
    beside = [sum(length for _, length in batch) for batch in home.backend.decodes if len(batch) == 4]
    assert len(beside) > 10
    assert all(size % 4 == 0 for size in beside[:-1])


def test_a_beginning_that_many_have_is_computed_once():
    home = Home(parallel=8)
    for request_id in range(8):
        home.submit(request_id, "a system prompt that all have, " * 20 + f"and number {request_id}")
    home.run()
    total = sum(length for batch in home.backend.decodes for _, length in batch)
    assert total < 640 + 8 * (12 + 11)
    assert sum(done.cached_tokens > 600 for done in home.ended.values()) == 7


def test_a_short_prompt_overtakes_a_long_one():
    home = Home(answer=1)
    home.submit(1, "long " * 500)
    home.step()
    home.submit(2, "short")
    home.run(2)
    assert 1 not in home.ended
    assert home.first(2) < 3.0


def test_a_long_prompt_is_not_starved_by_short_ones():
    home = Home(answer=1, parallel=2)
    home.submit(0, "long " * 500)
    number = 0
    while 0 not in home.ended:
        number += 1
        home.submit(number, f"{number} short prompt, " * 6)
        home.step()
    alone = 25.0
    assert home.ended_at[0] < 3 * alone


def test_the_background_stands_back_but_never_quite_still():
    home = Home(answer=400)
    home.submit(1, "background", priority="background")
    while not home.said[1]:
        home.step()
    home.submit(2, "interactive")
    home.run(2)
    assert 400 / 8 - 10 < len(home.said[1]) < 400 / 8 + 10
    home.run()
    assert len(home.said[1]) == 400


def test_an_interactive_request_takes_the_place_of_one_in_the_background():
    home = Home(answer=100, parallel=2)
    home.submit(1, "one", priority="background")
    home.submit(2, "two", priority="background")
    home.step()
    home.submit(3, "now!")
    home.run(3)
    assert set(home.ended) == {3}
    home.run()
    assert all(done.completion_tokens == 101 for done in home.ended.values())


def test_no_more_of_the_background_gives_way_than_must():
    home = Home(answer=200, context=400, parallel=8)
    for request_id in range(3):
        home.submit(request_id, f"{request_id} in the background", priority="background")
    while min(len(home.said[one]) for one in range(3)) < 60:
        home.step()
    home.submit(8, "now, for an instance of some length")
    home.step()
    home.run(8)
    assert sum(len(home.said[one]) for one in range(3)) > 3 * 60 + 40, "the others went on beside it"
    home.run()
    assert all(done.completion_tokens == 201 for done in home.ended.values())


def test_the_background_does_not_give_way_for_what_does_not_fit_anyway():
    home = Home(answer=100, context=400, parallel=8)
    home.submit(1, "x" * 200)
    home.submit(2, "background", priority="background")
    while not home.said[1] or not home.said[2]:
        home.step()
    home.submit(3, "y" * 300)
    before = len(home.said[2])
    while not home.ended:
        home.step()
    assert len(home.said[2]) > before + 3
    home.run()
    assert {request_id: done.completion_tokens for request_id, done in home.ended.items()} == {1: 101, 2: 101, 3: 100}


def test_equals_wait_for_their_turn():
    home = Home(parallel=1)
    for request_id in (1, 2, 3):
        home.submit(request_id, f"same length {request_id}")
    home.run()
    assert list(home.ended) == [1, 2, 3]


def test_who_has_waited_too_long_is_told():
    home = Home(answer=500, parallel=1)
    home.submit(1, "long answer")
    home.step()
    home.submit(2, "impatient", wait_seconds=3.0)
    home.run(2)
    assert home.ended[2].code == "waited"
    assert 3.1 < home.ended_at[2] < 3.2
    home.run()
    assert home.ended[1].reason == "stop"


def test_a_prompt_that_takes_longer_than_it_may_ends():
    home = Home()
    home.submit(1, "x" * 5000, max_seconds=10.0)
    home.run()
    assert home.ended[1].reason == "length"
    assert home.ended_at[1] < 12.0


@pytest.mark.parametrize("answers", [60, 90])
def test_when_cells_run_out_the_last_to_come_waits_and_loses_nothing(answers):
    home = Home(answer=answers, context=150, batch=16, parallel=4)
    for request_id in range(4):
        home.submit(request_id, f"{request_id} prompt")
    home.run()
    assert all(done.completion_tokens == answers + 1 for done in home.ended.values())
    assert next(iter(home.ended)) == 0


def test_a_request_that_does_not_fit_beside_the_others_waits_for_them():
    home = Home(answer=30, context=200, parallel=4)
    home.submit(1, "first")
    home.step()
    home.submit(2, "y" * 190, max_tokens=5)
    home.run()
    assert list(home.ended) == [1, 2]
    assert home.ended[2].completion_tokens == 5


def test_room_is_made_for_what_may_come_but_for_no_answer_before_its_first_word():
    home = Home(answer=900)
    home.submit(1, "x" * 300, max_tokens=500)
    home.step()
    assert home.backend.cells.expected == [(300, 428)]
    while not home.said[1]:
        home.step()
    home.step()
    assert home.backend.cells.expected[-1] == (429, 429)
    home.run(1)
    assert home.backend.cells.expected[-1] == (800, 800), "what is left of an answer may be less"
    home.submit(2, "y" * 300, max_tokens=500)
    home.submit(3, "y" * 300 + "z" * 20, max_tokens=500)
    while not home.said[2] or not home.said[3]:
        home.step()
    soon, later = home.backend.cells.expected[-1]
    assert later - soon > 200, "several grow together, and so not as often"


def test_room_for_what_prompts_have_in_common_is_made_once():
    home = Home(answer=50, batch=64)
    for request_id in range(4):
        home.submit(request_id, "s" * 500 + f"{request_id}: a question", max_tokens=40)
    home.step()
    soon, _later = home.backend.cells.expected[-1]
    assert soon == 500 + 4 * len("0: a question")
    home.run()
    assert {later for _, later in home.backend.cells.expected} == {soon + 4 * 40}


@pytest.mark.parametrize(("fitting", "taken"), [(13, 16), (22, 20), (29, 32), (31, 32), (35, 32), (40, 40), (47, 48)])
def test_a_step_beside_streams_has_about_as_many_tokens_as_fit_and_as_kernels_have_them_best(fitting, taken):
    home = Home(answer=2000)
    home.backend.token = (0.32 - 0.02) / (fitting + 0.5)
    home.submit(1, "one")
    while len(home.said[1]) < 40:
        home.step()
    home.submit(2, "x" * 3000)
    before = len(home.backend.decodes)
    while not home.said[2]:
        home.step()
    sizes = [sum(length for _, length in batch) for batch in home.backend.decodes[before:]]
    assert sizes.count(taken) > 0.9 * len(sizes), sizes
