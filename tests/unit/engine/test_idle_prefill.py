"""What the next turn begins with is computed while nobody waits, once, and nobody ever waits for it."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.loop import Engine
from qwen_edge.protocol.messages import Done, Sampling, Segment, Submit, Tokens, Warm
from tests.fakes import FakeBackend


class Home:
    """An engine over a fake model that answers with the last word of its prompt, on a clock that can be set."""

    def __init__(self, *, per_hour: float = float("inf"), **options) -> None:
        self.now = 0.0
        self.backend = FakeBackend(lambda prompt: prompt.split()[-1] + ".", **{"context": 800, **options})
        self.engine = Engine(self.backend, self._clock, ahead_per_hour=per_hour)
        self.said: dict[int, str] = {}
        self.cached: dict[int, int] = {}

    def _clock(self) -> float:
        self.now += 0.001
        return self.now

    def ask(self, number: int, text: str) -> None:
        self.said[number] = ""
        self.engine.submit(Submit(number, (Segment(text),), Sampling(), 100, 1e9))

    def warm(self, text: str) -> None:
        self.engine.warm(Warm((Segment(text),)))

    def step(self) -> None:
        for event in self.engine.step():
            if isinstance(event, Tokens):
                self.said[event.id] += event.text
            elif isinstance(event, Done):
                self.cached[event.id] = event.cached_tokens

    def answer(self) -> None:
        while self.engine.busy:
            self.step()

    def rest(self) -> int:
        """Until there is nothing to do; returns how many tokens were computed."""
        before = len(self.backend.decodes)
        while self.engine.prepare():
            assert self.engine.open_cells == 0, "a request would find a sequence open"
        return sum(length for batch in self.backend.decodes[before:] for _, length in batch)


def test_room_is_made_for_all_of_a_next_turn_and_not_for_a_piece_at_a_time():
    home = Home()
    home.ask(1, "a question, ")
    home.answer()
    home.warm("a question, " + "and more, " * 20)
    asked = len(home.backend.cells.expected)
    assert home.rest() >= 200
    assert {later for _soon, later in home.backend.cells.expected[asked:]} == {home.backend.cells.used}
    assert set(home.backend.cells.streams[asked:]) == {1}


def test_what_has_left_the_cache_is_not_computed_anew_while_idle():
    home = Home(context=400, host_tier_cells=0)
    home.ask(1, "one, " * 60)
    home.answer()
    home.warm("one, " * 60 + "and more")
    home.ask(2, "two, " * 60)  # takes its cells
    home.answer()
    assert home.rest() <= len("and more")


def test_what_left_the_cache_before_the_next_turn_was_known_is_not_computed_anew_either():
    home = Home(context=400, host_tier_cells=0)
    home.ask(1, "one, " * 60)
    home.answer()
    home.ask(2, "two, " * 60)  # takes its cells
    home.answer()
    home.warm("one, " * 60 + "and more")  # the daemon was slow to say so
    assert home.rest() <= len("and more")


def test_the_next_turn_computes_its_own_words_only():
    home = Home()
    home.ask(1, "think: hello there")
    home.answer()
    history = "hello there, and there it is. "
    home.warm(history)
    assert home.rest() == len(history)
    home.ask(2, history + "and now")
    home.answer()
    assert home.said[2] == "now."
    assert home.cached[2] == len(history)


def test_what_is_computed_ahead_takes_the_place_of_the_answer_it_shows_otherwise():
    home = Home()
    home.backend.cells.spare = 0
    home.engine = Engine(home.backend, home._clock, ahead_per_hour=float("inf"))
    home.ask(1, "x" * 100 + " answer")
    home.answer()
    used = home.backend.cells.used
    history = "x" * 100 + " ans<answer.>"
    home.warm(history)
    home.rest()
    assert home.backend.cells.used == len(history) < used + 3
    home.ask(2, history + " next")
    home.answer()
    assert (home.said[2], home.cached[2]) == ("next.", len(history))


def test_what_is_known_is_not_computed_again():
    home = Home()
    home.warm("a history")
    assert home.rest() == len("a history")
    home.warm("a history")
    home.warm("a hist")
    assert home.rest() == 0
    home.warm("a history that goes on")
    assert home.rest() == len(" that goes on")


def test_a_request_does_not_wait_for_more_than_a_piece_and_the_rest_is_done_later():
    home = Home()
    home.warm("x" * 100)
    assert home.engine.prepare()
    ((_, piece),) = home.backend.decodes[-1]
    assert piece <= 16
    before = len(home.backend.decodes)
    home.ask(1, "hello")
    home.answer()
    assert home.said[1] == "hello."
    assert [start for batch in home.backend.decodes[before:] for start, _ in batch] == [0, *range(5, 11)]
    assert home.rest() == 100 - piece


def test_who_computes_all_the_time_is_left_the_cores_for_most_of_it():
    home = Home()
    decode = home.backend.decode

    def beside_another(slices) -> None:
        decode(slices)
        home.now += 1.0
        home.backend.preempted += 100

    home.backend.decode = beside_another
    home.warm("x" * 700)
    pieces, began = 0, home.now
    while home.now < began + 100.0:
        if home.engine.prepare():
            pieces += 1
            assert pieces < 2 or 2.9 < home.engine.pause < 3.1
        else:
            home.now += home.engine.pause
    assert 20 <= pieces <= 27
    home.backend.decode = decode
    assert home.rest() > 0, "nobody is there any more"
    assert home.engine.pause == 0.0


def test_no_more_is_computed_than_the_hour_allows():
    home = Home(per_hour=40)
    home.warm("y" * 100)
    assert home.rest() == 40
    home.now += 1800
    assert home.rest() == 20
    home.now += 100 * 3600
    assert home.rest() == 40
    never = Home(per_hour=0)
    never.warm("y" * 100)
    assert never.rest() == 0


def test_what_does_not_fit_is_not_begun_and_of_many_the_latest_come_first():
    home = Home(context=100, parallel=2)
    home.warm("z" * 100)
    assert home.rest() == 0
    for letter in "abc":
        home.warm(letter * 30)
    assert home.rest() == 60
    home.ask(1, "c" * 30 + "!")
    home.answer()
    assert home.cached[1] == 30


texts = st.text(st.sampled_from("ab"), min_size=1, max_size=40)
turns = st.lists(st.tuples(st.sampled_from(("ask", "warm", "step", "prepare")), texts), max_size=40)


@given(turns, st.sampled_from((60, 200)))
def test_nothing_of_what_is_said_depends_on_it(plan, context):
    home, cold = Home(context=context), Home(context=context, per_hour=0)
    for number, (kind, text) in enumerate(plan):
        for one in (home, cold):
            if kind == "ask":
                one.ask(number, text)
            elif kind == "warm":
                one.warm(text)
            elif kind == "step":
                one.step()
            elif not one.engine.busy:
                one.engine.prepare()
    for one in (home, cold):
        one.answer()
        one.rest()
    assert home.said == cold.said
    assert home.engine.open_cells == 0
