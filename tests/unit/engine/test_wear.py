"""Flash wears: only what was really asked for twice, pinned or named for it is written while idle."""

import pytest

from qwen_edge.engine.loop import Engine
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.protocol.messages import Warm
from tests.fakes import FakeBackend
from tests.unit.engine.test_loop import run, submit
from tests.unit.kv.test_disk_tier import files

SYSTEM = "You are the voice of a house, and answer in a word. The lamp in the kitchen is on. " * 8


@pytest.fixture(params=[None, 0], ids=["all parked cells stay", "no parked cells stay"])
def house(tmp_path, request):
    """An engine that is asked, and then is idle for long: one with flash attention, and one on a CPU, where cells that
    no running request uses have to go. `house.disk` counts what is written."""

    class House(Engine):
        def __init__(self, **options) -> None:
            self.disk = DiskTier(tmp_path, "fake", limit=1 << 30, per_day=1 << 60, cell=4)
            self.backend = FakeBackend(lambda _: "Done.", **options)
            super().__init__(self.backend, disk=self.disk, ahead_per_hour=1e9)

        def ask(self, *requests) -> None:
            for request in requests:
                self.submit(request)
            run(self)
            for request in requests:  # as the next turn will show it
                self.warm(Warm((*request.prompt, *submit(0, "Done.<end>And").prompt)))

        def idle(self) -> None:
            while self.prepare():
                pass
            self.tidy()
            while self.prepare() or self.writing:
                self.disk.wait(10)

        @property
        def written(self) -> int:
            return sum(copy.size for copy in self.disk.copies)

    engine = House(parallel=4, spare=request.param)
    yield engine
    engine.disk.close()


def question(number: int, **changes):
    return submit(
        number, f"{SYSTEM}{number} o'clock, and I ask you: is it {number} degrees in room {number}?", **changes
    )


def test_two_hundred_single_questions_with_a_name_each_write_their_system_prompt_once(house):
    for number in range(1, 201):
        house.ask(question(number, conversation=f"user {number}"))
        house.idle()
    # what some have in common by chance is written, too: the digits of their numbers
    assert len(SYSTEM) <= house.written <= len(SYSTEM) + 64
    assert all(not copy.tokens[len(SYSTEM) + 80 :] for copy in house.disk.copies)


def test_one_question_is_no_question_that_was_asked_twice(house):
    house.ask(question(1))
    house.idle()
    assert house.written == 0


def test_questions_with_nothing_but_their_first_letters_in_common_are_not_written(house):
    for number in range(8):
        house.ask(submit(number, f"<|im_start|>{number} is a number, and this is what I want to know of it: why?"))
        house.idle()
    assert house.written == 0


def test_several_answers_to_one_question_are_one_question(house):
    text = question(1).prompt[0].text
    house.ask(question(1), *(submit(number, text, asked=0) for number in (2, 3)))
    house.idle()
    assert house.written == 0


def test_who_had_to_give_way_has_not_asked_twice(house):
    house.submit(question(1, priority="idle"))
    for _ in range(10):
        house.step()
    for number in range(2, 6):
        house.submit(submit(number, f"{number} urgent things that are to be known now"))
    run(house)
    house.idle()
    assert house.written == 0


def test_what_is_asked_again_is_written(house):
    for number in (1, 2):
        house.ask(submit(number, f"{SYSTEM}the very same question"))
        house.idle()
    assert house.written >= len(SYSTEM)


def test_a_conversation_that_is_named_for_it_is_written_at_once(house):
    house.ask(question(1, asked=2))
    house.idle()
    assert house.written >= len(SYSTEM) + 40


def test_what_is_pinned_is_written_at_once(house):
    house.ask(question(1, pin_seconds=100.0))
    house.idle()
    assert house.written >= len(SYSTEM) + 40


def test_at_the_end_all_is_written(house, tmp_path):
    for number in range(1, 4):
        house.ask(question(number, conversation=f"user {number}"))
        house.idle()
    house.leave(10)
    assert files(tmp_path)
    for number in range(1, 4):
        tokens = house.backend.vocabulary.tokenize(question(number).prompt)
        assert house.disk.reach(tokens) == len(tokens)
