"""Nobody uses what only others have sent, wherever it is kept; what an admin has pinned is for all."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.kv import file as kv_file
from qwen_edge.kv.holdings import forget, holdings
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.radix import common_prefix
from qwen_edge.protocol.messages import EVERYBODY, Caller
from tests.unit.kv.test_disk_tier import cells_of, copy_of, disk, files, keep
from tests.unit.kv.test_manager import Home

ONE, TWO, BOSS = Caller("one", admin=False), Caller("two", admin=False), Caller("boss", admin=True)
LONG = list(range(100, 160))


class Shared(Home):
    """A home with several owners: `caller` is who acts now. Checks that nobody has what he has not computed himself."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.caller = ONE
        self.whose: dict[int, Caller] = {}
        self.computed: dict[str, list[list[int]]] = {}
        self.public: list[list[int]] = []

    def may_have(self, owner: str, tokens: list[int]) -> int:
        return max((common_prefix(one, tokens) for one in [*self.computed.get(owner, []), *self.public]), default=0)

    def begin(self, tokens: list[int]) -> int | None:
        opened = self.manager.open(tokens, self.caller)
        if opened is None:
            return None
        sequence, _ = opened
        held = self.restore(sequence, tokens)
        assert held <= self.may_have(self.caller.owner, tokens)
        self.whose[sequence], self.open[sequence] = self.caller, (tokens, held)
        return sequence

    def compute(self, sequence: int, count: int) -> bool:
        (tokens, before), owner = self.open[sequence], self.whose[sequence].owner
        most = max(before, self.may_have(owner, tokens))
        assert self.manager.adopt(sequence, tokens) <= most
        done = super().compute(sequence, count)
        tokens, after = self.open[sequence]
        assert after <= most + count
        self.computed.setdefault(owner, []).append(tokens[:after])
        return done

    def pin(self, tokens: list[int]) -> None:
        self.manager.pins.pin(tokens, 1000.0, BOSS)
        self.public.append(tokens)


def as_caller(home: Shared, caller: Caller) -> Shared:
    home.caller = caller
    return home


blocks = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(lambda parts: [one for one in parts for _ in range(8)])
callers = st.sampled_from((ONE, TWO, BOSS))
plans = st.lists(
    st.tuples(st.sampled_from(("begin", "begin", "make_way", "remember", "pin")), callers, blocks)
    | st.tuples(st.sampled_from(("compute", "publish", "park", "close")), st.integers(0, 3), st.integers(1, 40)),
    max_size=40,
)


@given(plans, st.sampled_from((0, 30, 1000)), st.sampled_from((0, 60)))
def test_whatever_happens_nobody_has_what_he_has_not_computed(plan, spare, stash):
    home = Shared(size=120, sequences=6, spare=spare, host_tier_cells=stash)
    for kind, who, what in plan:
        if kind in ("begin", "make_way", "remember", "pin"):
            home.caller = who
            if kind == "make_way":
                home.manager.drop_outdated(what, who)
            elif kind == "pin":
                home.pin(what)
            elif kind == "begin":
                home.begin(what)
            elif len(home.open) < 2:
                sequence = home.begin(what)
                home.compute(sequence, len(what))
                home.park(sequence)
        elif home.open:
            sequence = sorted(home.open)[who % len(home.open)]
            home.compute(sequence, what) if kind == "compute" else getattr(home, kind)(sequence)
        while home.manager.prepare():
            pass
        home.check()


def test_two_who_compute_the_same_share_the_cells_from_then_on_and_each_keeps_it():
    home = Shared(size=200)
    for caller in (ONE, TWO):
        as_caller(home, caller).remember(LONG)
    assert home.store.used == len(LONG)
    for caller in (ONE, TWO):
        assert as_caller(home, caller).known(LONG) == len(LONG)
    home.check()


def test_what_comes_after_the_same_beginning_is_still_nobody_elses():
    home = Shared(size=300, sequences=8)
    for caller in (ONE, TWO):
        as_caller(home, caller).remember(LONG)
    as_caller(home, TWO).remember([*LONG, *range(30)])
    assert home.store.used == len(LONG) + 30
    assert as_caller(home, ONE).known([*LONG, *range(30)]) == len(LONG)
    assert as_caller(home, TWO).known([*LONG, *range(30)]) == len(LONG) + 30


def test_what_others_compute_at_the_same_time_is_computed_by_each():
    home = Shared(size=200)
    one = as_caller(home, ONE).begin([*LONG, 1])
    two = as_caller(home, TWO).begin([*LONG, 2])
    home.compute(one, 50)
    home.publish(one)
    home.compute(two, 10)
    assert home.open[two][1] == 10


def test_copies_come_back_for_their_owner_only():
    home = Shared(size=100, spare=0, host_tier_cells=300)
    as_caller(home, ONE).remember(LONG)
    as_caller(home, TWO).remember(list(range(80)))
    assert home.manager.known(LONG, "one") < len(LONG), "it had to make room"
    assert as_caller(home, TWO).known(LONG) == 0
    assert as_caller(home, ONE).known(LONG) == len(LONG)


def test_copies_of_what_two_hold_are_kept_for_both():
    home = Shared(size=100, spare=0, host_tier_cells=300)
    for caller in (ONE, TWO):
        as_caller(home, caller).remember(LONG)
    as_caller(home, BOSS).remember(list(range(80)))
    for caller in (ONE, TWO):
        assert as_caller(home, caller).known(LONG) == len(LONG)


def test_where_the_cache_is_shared_with_all_it_is_as_if_there_were_one_owner():
    home = Home(size=200)
    callers = [Caller(name, admin=False, shares=True) for name in ("one", "two")]
    home.remember(LONG)
    for caller in callers:
        sequence, held = home.manager.open([*LONG, -1], caller)
        assert held == len(LONG)
        home.manager.close(sequence)


def test_what_an_admin_has_pinned_is_for_all_as_far_as_the_pin_reaches_and_as_long():
    now = [0.0]
    home = Shared(size=200, sequences=8)
    home.manager.pins._clock = lambda: now[0]
    as_caller(home, BOSS).remember(LONG)
    home.pin(LONG[:40])
    assert as_caller(home, ONE).known(LONG) == 40
    assert as_caller(home, ONE).known([*LONG[:20], 7, 7]) == 20
    now[0], home.public = 2000.0, []
    assert as_caller(home, ONE).known(LONG) == 0


def test_the_pin_of_a_key_without_rights_shares_nothing():
    home = Shared(size=200)
    as_caller(home, ONE).remember(LONG)
    home.manager.pins.pin(LONG, 1000.0, ONE)
    assert as_caller(home, TWO).known(LONG) == 0


def test_pins_are_their_owners_and_an_admin_ends_those_of_all():
    pins = Pins()
    for caller in (ONE, TWO, BOSS):
        pins.pin(LONG, 100.0, caller)
    pins.pin(LONG, 0, ONE)
    assert pins.public(LONG) == len(LONG)
    pins.pin(LONG, 0, BOSS)
    assert pins.until(LONG) == 0
    pins.pin(LONG, 100.0, ONE)
    assert pins.until(LONG, "one") > 0
    assert pins.until(LONG, "two") == 0


def test_nobody_pushes_the_pins_of_others_out():
    pins = Pins()
    pins.pin(LONG, 100.0, ONE)
    for number in range(100):
        pins.pin([number], 1000.0, TWO)
    assert pins.until(LONG, "one") > 0
    assert sum(pins.until([number]) > 0 for number in range(100)) == 64


def test_pins_and_whose_they_are_outlive_the_engine(tmp_path):
    one = disk(tmp_path)
    one.pins.pin(LONG, 1e6, BOSS)
    one.pins.pin([1, 2], 1e6, ONE)
    assert one.pins.written(10)
    one.close()
    one = disk(tmp_path)
    assert one.pins.public([*LONG, 1]) == len(LONG)
    assert (one.pins.until([1, 2], "one") > 0, one.pins.until([1, 2], "two")) == (True, 0)
    one.close()


def test_a_pin_that_was_written_before_there_were_owners_is_read_and_is_not_public(tmp_path):
    one = disk(tmp_path)
    one.pins.pin(LONG, 1e6)
    assert one.pins.written(10)
    one.close()
    (file,) = tmp_path.glob("pins.json")
    old = [{"tokens": pin["tokens"], "until": pin["until"]} for pin in msgspec.json.decode(file.read_bytes())]
    file.write_bytes(msgspec.json.encode(old))
    one = disk(tmp_path)
    assert one.pins.until(LONG) > 0
    assert one.pins.public(LONG) == 0
    one.close()


def owned(tokens: list[int], caller: Caller):
    copy = copy_of(tokens)
    copy.caller = caller
    return copy


def test_files_are_their_owners_in_the_next_life_too(tmp_path):
    keep(disk(tmp_path), owned(LONG, ONE), owned(LONG, TWO), owned(LONG[:30], EVERYBODY))
    assert len(files(tmp_path)) == 3
    one = disk(tmp_path)
    assert [one.reach(LONG, owner) for owner in ("one", "two", "three", "", None)] == [60, 60, 0, 30, 60]
    one.pins.pin(LONG[:50], 1e6, BOSS)
    assert one.reach(LONG, "three") == 50
    one.close()


def test_a_file_that_was_written_before_there_were_owners_is_nobodys_and_comes_back_where_there_are_no_keys(tmp_path):
    class OldHead(msgspec.Struct):
        fingerprint: str
        start: int
        tokens: bytes
        hits: int
        size: int
        checksum: bytes

    keep(disk(tmp_path), copy_of(LONG))
    (file,) = files(tmp_path)
    head = kv_file.read_head(file)
    old = OldHead(*(getattr(head, name) for name in OldHead.__struct_fields__))
    encoded = msgspec.msgpack.encode(old)
    body = cells_of(LONG, 0)
    mark = kv_file._LENGTH.pack(kv_file._MARK, len(encoded))
    file.write_bytes(mark + encoded + kv_file.xxhash.xxh3_128_digest(encoded) + body)
    one = disk(tmp_path)
    assert (one.reach(LONG), one.reach(LONG, "one")) == (len(LONG), 0)
    one.close()


def test_what_is_written_when_the_engine_goes_comes_back_for_its_owner_only(tmp_path):
    home = Shared(size=300, sequences=8, disk=disk(tmp_path))
    for caller in (ONE, TWO):
        as_caller(home, caller).remember(LONG)
    as_caller(home, ONE).remember([*LONG, *range(40)])
    home.manager.leave(10.0, lambda: 0.0)
    again = Shared(size=300, sequences=8, disk=disk(tmp_path))
    again.computed = home.computed
    assert as_caller(again, TWO).known([*LONG, *range(40)]) == len(LONG)
    assert as_caller(again, ONE).known([*LONG, *range(40)]) == len(LONG) + 40
    assert as_caller(again, BOSS).known(LONG) == 0
    again.disk.close()


@pytest.fixture
def kept(tmp_path):
    """Two owners who have asked the same, one of them more, in the cache and in files."""
    home = Shared(size=300, sequences=8, disk=disk(tmp_path))
    for caller in (ONE, TWO, ONE, TWO):
        as_caller(home, caller).remember(LONG)
    as_caller(home, ONE).remember([*LONG, *range(40)])
    while home.manager.write():
        home.disk.wait(10)
    yield home
    home.disk.close()


def seen(home: Shared, caller: Caller) -> list[tuple[str, int, int, bool]]:
    return [(one.owner, len(one.tokens), one.cached, one.written > 0) for one in holdings(home.manager, caller)]


def test_everybody_sees_his_own_and_an_admin_all(kept):
    assert seen(kept, ONE) == [("one", 100, 100, True)]
    assert seen(kept, TWO) == [("two", 60, 60, True)]
    assert seen(kept, Caller("three", admin=False)) == []
    assert seen(kept, BOSS) == [("one", 100, 100, True), ("two", 60, 60, True)]
    assert len({one.key for one in holdings(kept.manager, BOSS)}) == 2


def test_who_forgets_his_own_leaves_what_others_have_of_it(kept):
    (mine,) = holdings(kept.manager, TWO)
    forget(kept.manager, mine, TWO)
    assert seen(kept, TWO) == []
    assert seen(kept, ONE) == [("one", 100, 100, True)]
    kept.computed["two"].clear()
    assert as_caller(kept, TWO).known(LONG) == 0
    assert as_caller(kept, ONE).known(LONG) == len(LONG)


def test_an_entry_does_not_tell_that_others_have_asked_the_same(tmp_path):
    """Neither by its length, nor by what is written of it, nor by what is cached."""
    alone, beside = (Shared(size=600, sequences=8, disk=disk(tmp_path / name)) for name in ("a", "b"))
    for other in ([*LONG, 1, 2, 3], [*LONG[:58], 7, 7], LONG, LONG):
        as_caller(beside, TWO).remember(other)
    beside.manager.pins.pin(LONG, 1000.0, TWO)
    for home in (alone, beside):
        as_caller(home, ONE).remember(LONG)
        while home.manager.write():
            home.disk.wait(10)
    assert seen(alone, ONE) == seen(beside, ONE) == [("one", 60, 60, False)]
    assert {one.pinned_until for one in holdings(beside.manager, ONE)} == {0.0}
    assert [one.key for one in holdings(alone.manager, ONE)] == [one.key for one in holdings(beside.manager, ONE)]
    for home in (alone, beside):
        home.disk.close()
