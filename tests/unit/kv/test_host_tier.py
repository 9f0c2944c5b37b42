"""What had to leave the cache comes back from its copies, whole and in its place."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.kv.host_tier import Copy, HostTier, next_of
from qwen_edge.kv.pins import Pins
from tests.unit.kv.test_manager import Home

FIRST, SECOND = list(range(40)), list(range(100, 140))


def put(stash: HostTier, tokens: list[int], start: int = 0, hits: int = 1) -> None:
    if count := stash.wanted(tokens, start):
        stash.put(Copy(tokens[: start + count], start, tokens[start : start + count], hits))


def find(stash: HostTier, tokens: list[int], held: int = 0) -> int:
    """How far the copy leads that is brought back next; `held` if there is none."""
    found = next_of(stash.leads(tokens), held)
    if found:
        stash.use(*found, for_client=True)
    return found[1] if found else held


def test_two_prompts_in_turn_are_both_remembered_where_parked_cells_have_a_price():
    home = Home(size=200, spare=0, host_tier_cells=100)
    for _ in range(2):
        home.remember(FIRST)
        home.remember(SECOND)
    assert home.known(FIRST) == 40
    assert home.known(SECOND) == 40
    home.check()


def test_a_prompt_that_was_pushed_out_in_pieces_comes_back_whole():
    home = Home(size=130, host_tier_cells=200)
    long = list(range(1000, 1120))
    home.remember(long)
    home.remember([1] * 30)
    home.remember([2] * 100)
    assert home.known(long) == 120
    home.check()


def test_what_is_dropped_for_its_number_comes_back():
    home = Home(size=200, sequences=2, host_tier_cells=100)
    for prompt in (FIRST, SECOND, [7] * 20):
        home.remember(prompt)
    assert home.known(FIRST) == 40


def test_a_copy_is_used_as_far_as_it_agrees_and_behind_what_is_held():
    home = Home(size=200, spare=0, host_tier_cells=100)
    home.remember(FIRST)
    home.remember(SECOND)
    home.manager.reserve(200)
    assert home.known([*FIRST[:25], 9, 9]) == 25
    one = home.begin([*FIRST[:20], 8])
    assert home.open[one][1] == 20
    assert home.known(FIRST) == 40
    home.check()


def test_without_room_nothing_is_brought_back_and_nothing_is_lost():
    home = Home(size=60, spare=0, host_tier_cells=100)
    home.remember(FIRST)
    other = home.begin(SECOND)
    home.compute(other, 40)
    one = home.begin(FIRST)
    assert home.open[one][1] == 0
    home.check()
    home.close(other)
    home.close(one)
    assert home.known(FIRST) == 40


def test_no_more_than_four_pieces_are_copied_between_two_steps():
    home = Home(size=3000, spare=0, host_tier_cells=3000)
    home.remember(list(range(2000)))
    copied = []
    save = home.store.save
    home.store.save = lambda sequence, start, end: copied.append(end - start) or save(sequence, start, end)
    one = home.begin(SECOND)
    for step in range(1, 3):
        home.manager.tidy()
        assert len(copied) == 4 * step
    home.manager.tidy()
    assert home.store.used == 0
    assert max(copied) == 256
    assert sum(copied) == 2000
    home.close(one)
    assert home.known(list(range(2000))) == 2000


def test_cells_go_without_a_copy_where_there_is_no_memory_for_one():
    home = Home(size=200, sequences=3, spare=0, host_tier_cells=300)
    home.remember(FIRST)
    home.store.save = lambda sequence, start, end: None
    while home.manager.prepare():
        pass
    one = home.begin(SECOND)
    home.manager.tidy()
    assert home.store.used == 0
    assert home.manager.host_tier.size == 0
    home.close(one)
    for number in range(4):  # more prompts than sequences
        home.remember([500 + number] * 30)
    assert home.known(FIRST) == 0
    home.check()


def test_all_that_may_have_to_go_is_copied_while_nothing_runs():
    home = Home(size=3000, spare=0, host_tier_cells=3000)
    for number in range(3):
        home.remember([number] * 600)
    while home.manager.prepare():
        pass
    home.store.save = None
    home.begin([7] * 20)
    home.manager.tidy()
    assert home.store.used == 0


def test_what_is_forgotten_is_not_copied_any_more():
    home = Home(size=2000, spare=0, host_tier_cells=2000)
    home.remember([1] * 600)
    home.manager.drop_if(lambda prompt: True)
    assert home.manager.prepare()
    assert home.manager.host_tier.size == 0


def test_what_was_copied_while_nothing_ran_goes_without_being_copied():
    home = Home(size=2000, spare=0, host_tier_cells=2000)
    house = list(range(300))
    home.remember([*house, *FIRST])
    while home.manager.prepare():
        pass
    home.remember([*house, *range(1000, 1500)])
    copied = []
    save = home.store.save
    home.store.save = lambda sequence, start, end: copied.append(end - start) or save(sequence, start, end)
    while home.manager.prepare():
        pass
    assert max(copied) == 256
    assert sum(copied) == 800 - 256, "the first piece is there already"
    one = home.begin([7] * 20)
    home.manager.tidy()
    assert home.store.used == 0
    assert sum(copied) == 800 - 256
    home.close(one)
    assert home.known([*house, *FIRST]) == 340
    assert home.known([*house, *range(1000, 1500)]) == 800


def test_nothing_is_copied_ahead_where_parked_cells_may_stay():
    home = Home(size=2000, spare=1000, host_tier_cells=2000)
    home.remember(FIRST)
    assert not home.manager.prepare()
    assert home.manager.host_tier.size == 0


def test_answers_are_not_copied():
    home = Home(size=200, spare=0, host_tier_cells=200)
    home.prompts = 25
    home.remember(FIRST)
    home.begin(SECOND)
    home.manager.tidy()
    assert home.store.used == 0
    assert home.manager.host_tier.size == 25


def test_of_what_leads_on_from_another_the_end_goes_first():
    stash = HostTier(40, Pins())
    put(stash, FIRST[:20])
    put(stash, FIRST, start=20)
    put(stash, SECOND[:20])
    assert find(stash, FIRST) == 20
    assert find(stash, FIRST, 20) == 20


def test_what_is_wanted_least_makes_room():
    stash = HostTier(100, Pins())
    put(stash, FIRST)
    put(stash, SECOND)
    assert find(stash, FIRST) == 40
    put(stash, [5] * 40)
    assert find(stash, SECOND) == 0
    assert find(stash, FIRST) == 40
    assert stash.size == 80


def test_what_is_there_already_is_not_copied_again():
    stash = HostTier(1000, Pins())
    put(stash, FIRST)
    assert stash.wanted(FIRST, 0) == 0
    assert stash.wanted(FIRST, 10) == 0
    assert stash.wanted([*FIRST, *SECOND], 40) == 40
    put(stash, [*FIRST, *SECOND])
    assert stash.size == 80, "the shorter copy is part of the longer one"
    assert stash.wanted([1] * 15, 0) == 0, "as quickly computed"
    assert HostTier(0, Pins()).wanted(FIRST, 0) == 0
    assert HostTier(30, Pins()).wanted(FIRST, 0) == 30


runs = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), min_size=1, max_size=5)
prompts = runs.map(lambda runs: [token for token, count in runs for _ in range(count)])
plans = st.lists(
    st.tuples(st.just("begin"), prompts)
    | st.tuples(
        st.sampled_from(("compute", "publish", "park", "close")), st.tuples(st.integers(0, 3), st.integers(1, 80))
    ),
    max_size=40,
)


@given(plans, st.sampled_from((0, 20, 1000)), st.sampled_from((0, 20, 64, 500)), st.sampled_from((None, 0, 7, 40)))
def test_whatever_happens_every_open_sequence_holds_its_own_tokens(plan, spare, stash, prompts):
    home = Home(size=160, spare=spare, host_tier_cells=stash)
    home.prompts = prompts
    for kind, value in plan:
        if kind == "begin":
            home.begin(value)
        elif home.open:
            which, count = value
            sequence = sorted(home.open)[which % len(home.open)]
            act = getattr(home, kind)
            act(sequence, count) if kind == "compute" else act(sequence)
        home.check()
        if not home.open:
            home.manager.prepare()
        home.manager.tidy()
        home.check()
        assert home.manager.host_tier.size <= stash
    for sequence in list(home.open):
        home.close(sequence)
    assert home.manager.available == home.manager.size
