"""Cells are counted as they are used, shared where tokens are the same, and never taken from an open sequence."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.kv.model_id import ModelId
from qwen_edge.kv.restore import Restore
from tests.fakes import FakeCells


class Home:
    """Cells over a cache that checks every call, and the open sequences with their tokens."""

    def __init__(
        self,
        size: int = 30,
        sequences: int = 4,
        *,
        spare: int = 1000,
        host_tier_cells: int = 0,
        disk: DiskTier | None = None,
    ) -> None:
        self.store = FakeCells(size, sequences, spare=spare, host_tier_cells=host_tier_cells)
        self.disk = disk
        self.manager = KvCacheManager(self.store, disk, model_id=ModelId("fake"))
        self.prompts: int | None = None  # how much of every sequence is prompt; None: all of it
        self.open: dict[int, tuple[list[int], int]] = {}  # the tokens, and how many of them are computed

    def begin(self, tokens: list[int]) -> int | None:
        opened = self.manager.open(tokens)
        if opened is None:
            return None
        sequence, _ = opened
        computed = self.restore(sequence, tokens)
        assert computed < len(tokens)
        self.open[sequence] = tokens, computed
        return sequence

    def restore(self, sequence: int, tokens: list[int]) -> int:
        """All that copies and files hold of it; returns how much of it is in the cache then."""
        options = {"patience": lambda _: 10.0, "clock": time.monotonic, "disk": self.disk}
        restore = Restore(self.manager, sequence, tokens, **options)
        while restore.step():
            if restore.waiting:
                restore.waiting.wait(10)
        return restore.held

    def compute(self, sequence: int, count: int) -> bool:
        """As an engine does: take over what others have, make room, run."""
        tokens, _ = self.open[sequence]
        computed = self.manager.adopt(sequence, tokens)
        self.open[sequence] = tokens, computed
        part = tokens[computed : computed + count]
        if not self.manager.reserve(len(part)):
            assert self.manager.available < len(part)
            return False
        self.store.write(sequence, computed, part)
        self.open[sequence] = tokens, computed + len(part)
        self.manager.compute(sequence, computed + len(part))
        return True

    def publish(self, sequence: int) -> None:
        tokens, computed = self.open[sequence]
        self.manager.publish(sequence, tokens[:computed])

    def park(self, sequence: int) -> None:
        tokens, computed = self.open.pop(sequence)
        self.manager.park(sequence, tokens[:computed], len(tokens) if self.prompts is None else self.prompts)

    def close(self, sequence: int) -> None:
        del self.open[sequence]
        self.manager.close(sequence)

    def check(self) -> None:
        assert self.manager.used == self.store.used <= self.manager.size
        assert self.manager.size - self.manager.available <= self.manager.used
        for sequence, (tokens, computed) in self.open.items():
            assert self.store.held(sequence) == tokens[:computed]

    def remember(self, tokens: list[int]) -> None:
        """A whole request with these tokens."""
        sequence = self.begin(tokens)
        assert sequence is not None
        assert self.compute(sequence, len(tokens))
        self.park(sequence)

    def known(self, tokens: list[int]) -> int:
        """How much of a prompt would not have to be computed."""
        sequence = self.begin([*tokens, -1])
        assert sequence is not None
        computed = self.open[sequence][1]
        self.close(sequence)
        return computed


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=14)
plans = st.lists(
    st.tuples(st.sampled_from(("begin", "make_way")), prompts)
    | st.tuples(
        st.sampled_from(("compute", "publish", "park", "close")), st.tuples(st.integers(0, 3), st.integers(1, 9))
    ),
    max_size=40,
)


@given(plans, st.sampled_from((0, 5, 1000)))
def test_whatever_happens_every_cell_is_counted_and_open_sequences_keep_theirs(plan, spare):
    home = Home(spare=spare)
    for kind, value in plan:
        if kind == "begin":
            home.begin(value)
        elif kind == "make_way":
            home.manager.drop_outdated(value)
        elif home.open:
            which, count = value
            sequence = sorted(home.open)[which % len(home.open)]
            act: Callable = getattr(home, kind)
            act(sequence, count) if kind == "compute" else act(sequence)
        home.check()
    for sequence in list(home.open):
        home.close(sequence)
    assert home.manager.available == home.manager.size
    home.open.clear()
    assert home.manager.reserve(home.manager.size)
    assert home.store.used == 0


def test_a_beginning_that_was_computed_once_is_shared():
    home = Home()
    home.remember([1, 2, 3, 4])
    one, other = home.begin([1, 2, 3, 7]), home.begin([1, 2, 3, 8, 9])
    assert home.open[one][1] == home.open[other][1] == 3
    assert home.store.used == 4


def test_what_another_computes_meanwhile_is_taken_over():
    home = Home()
    one, other = home.begin([1, 2, 3, 4, 5]), home.begin([1, 2, 3, 4, 6])
    home.compute(one, 4)
    home.publish(one)
    home.compute(other, 1)
    assert home.open[other][1] == 5
    assert home.store.used == 5


def test_the_same_tokens_computed_twice_become_one():
    home = Home()
    one, other = home.begin([1, 2, 3]), home.begin([1, 2, 3])
    home.compute(one, 3)
    home.compute(other, 3)
    home.park(one)
    home.park(other)
    assert home.store.used == 3


def test_a_full_cache_forgets_what_was_wanted_least_and_from_the_end():
    home = Home(size=800, sequences=8)
    often, once = [1] * 320, [2] * 320
    home.remember(often)
    home.remember(once)
    assert home.known(often) == 320
    home.remember([3] * 240)
    assert home.known(often) == 320
    assert home.known(once) == 320 - 256


def test_a_sequence_that_goes_on_from_a_parked_one_takes_its_place():
    home = Home(sequences=2)
    for turn in range(1, 10):
        home.remember([1, 2] * turn)
    assert home.store.used == 18
    assert len(home.store.of) == 1


def test_where_parked_cells_have_a_price_few_stay_while_others_run():
    home = Home(size=1000, sequences=8, spare=100)
    home.remember([1] * 400)
    assert home.store.used == 400
    one = home.begin([2] * 300)
    home.manager.tidy()
    assert home.store.used == 100
    home.compute(one, 300)
    home.park(one)
    assert home.known([1] * 400) == 100


def test_an_answer_makes_way_for_what_is_computed_of_it_and_a_conversation_beside_it_stays():
    home = Home(size=1000, sequences=8, spare=100)
    system, answer = [1] * 60, [3] * 40
    home.prompts = 70
    home.remember([*system, *[2] * 10, *answer])
    home.remember([*system, *[4] * 10, *answer])
    home.manager.drop_outdated([*system, *[2] * 10, *[5] * 40])
    assert home.known([*system, *[2] * 10, *answer]) == 70
    assert home.known([*system, *[4] * 10, *answer]) == 110
    home.manager.drop_outdated([*system, *[6] * 10])
    assert home.known([*system, *[4] * 10, *answer]) == 110, "another question is no answer shown otherwise"


def test_no_open_sequence_is_given_up_for_another():
    home = Home(sequences=2)
    assert home.begin([1]) is not None
    assert home.begin([2]) is not None
    assert home.begin([3]) is None


@pytest.fixture
def long_before() -> Home:
    """2,048 cells are about to go, and have to be copied before; 100 are computed meanwhile."""
    home = Home(size=4000, spare=0, host_tier_cells=4000)
    home.remember(list(range(2048)))
    home.compute(home.begin(list(range(5000, 5100))), 100)
    return home


def test_of_what_is_about_to_go_some_pieces_are_copied_between_two_steps(long_before):
    leaving = [long_before.manager.leaving]
    while leaving[-1]:
        long_before.manager.tidy()
        leaving.append(long_before.manager.leaving)
        assert long_before.manager.used == 100 + leaving[-1]
    assert leaving == [2048, 1024, 0]
    long_before.check()


def test_more_goes_at_once_where_the_next_step_would_not_find_room(long_before):
    long_before.store.room = 1000
    long_before.manager.tidy()
    assert long_before.manager.used == 100 + 512
