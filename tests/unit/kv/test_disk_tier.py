"""What is in files comes back after the process that wrote them is gone, or not at all; never wrong."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
from array import array
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.kv import file as kv_file
from qwen_edge.kv import folder as kv_folder
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.host_tier import Copy, next_of
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.kv.model_id import ModelId
from tests.fakes import FakeCells
from tests.unit.kv.test_manager import Home

LONG = list(range(600))
DAY = 86400.0


def cells_of(tokens: list[int], start: int) -> bytes:
    """Bytes that tell which stretch they are of."""
    return b"".join(token.to_bytes(4, "little") for token in tokens[start:])


def copy_of(tokens: list[int], start: int = 0, hits: int = 1) -> Copy:
    return Copy(list(tokens), start, cells_of(tokens, start), hits)


def disk(
    folder: Path, fingerprint: str = "model a", limit: int = 1 << 20, per_day: int = 1 << 30, **options
) -> DiskTier:
    return DiskTier(folder, fingerprint, limit=limit, per_day=per_day, cell=4, **options)


def keep(one: DiskTier, *copies: Copy) -> None:
    for copy in copies:
        one.put(copy)
        one.wait(10)
        assert not one.busy
    one.close()


def find(one: DiskTier, tokens: list[int], held: int = 0) -> tuple[Copy, int] | None:
    """The file that leads farthest, with its cells, and how far."""
    while found := next_of(one.leads(tokens), held):
        copy, until = found
        read = one.begin(copy)
        assert read
        read.wait(10)
        try:
            cells = bytes(read.cells())
        except (OSError, ValueError) as error:
            one.failed(copy, error)
            one.wait(10)
            continue
        finally:
            read.give_up()
        one.use(copy, until, for_client=True)
        return Copy(copy.tokens, copy.start, cells, copy.hits), until
    return None


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.kv"))


def test_what_was_written_is_found_by_the_next_life(tmp_path):
    keep(disk(tmp_path), copy_of(LONG[:256]), copy_of(LONG[:500], 256))
    one = disk(tmp_path)
    copy, until = find(one, LONG, 0)
    assert (until, bytes(copy.cells)) == (256, cells_of(LONG[:256], 0))
    copy, until = find(one, LONG, 256)
    assert (copy.start, until, bytes(copy.cells)) == (256, 500, cells_of(LONG[:500], 256))
    assert find(one, LONG, 500) is None
    assert one.reach(LONG[:256]) == 256
    one.close()


@pytest.mark.parametrize("fingerprint", ["model b", "model a, q8_0"])
def test_what_was_computed_with_something_else_is_not_used_and_that_is_told(tmp_path, caplog, fingerprint):
    keep(disk(tmp_path), copy_of(LONG))
    one = disk(tmp_path, fingerprint)
    assert find(one, LONG, 0) is None
    assert "1 files" in caplog.text
    keep(one, copy_of(LONG))
    one = disk(tmp_path)
    assert find(one, LONG, 0)[1] == len(LONG), "it is there when its model is back"
    one.close()


@pytest.mark.parametrize("other", [ModelId("model b"), ModelId("model a", "house")], ids=["model", "adapter"])
def test_the_cache_of_another_model_or_adapter_never_uses_the_same_files(tmp_path, other):
    one = disk(tmp_path)
    for _ in range(2):
        KvCacheManager(FakeCells(), one, model_id=ModelId("model a"))
    with pytest.raises(ValueError, match=f"are not for .*{other.adapter}"):
        KvCacheManager(FakeCells(), one, model_id=other)
    one.close()


def test_what_is_of_another_model_goes_first(tmp_path):
    keep(disk(tmp_path, "model b"), *(copy_of([number, *range(300)]) for number in range(3)))
    one = disk(tmp_path, limit=9_000)
    for number in range(3):
        one.put(copy_of([number, *range(300)]))
        one.wait(10)
        assert not one.busy
    assert all(find(one, [number, *range(300)], 0) for number in range(3))
    assert len(files(tmp_path)) == 3
    one.close()


@settings(max_examples=60)
@given(damage=st.data())
def test_a_damaged_file_is_a_miss_and_a_line_in_the_log(tmp_path_factory, damage):
    folder = tmp_path_factory.mktemp("damaged")
    keep(disk(folder), copy_of(LONG))
    (file,) = files(folder)
    whole = bytearray(file.read_bytes())
    if damage.draw(st.booleans(), label="cut"):
        del whole[damage.draw(st.integers(0, len(whole) - 1), label="at") :]
    else:
        whole[damage.draw(st.integers(0, len(whole) - 1), label="byte")] ^= damage.draw(st.integers(1, 255), label="by")
    before_the_scan = damage.draw(st.booleans(), label="before the scan")
    one = None if before_the_scan else disk(folder)
    file.write_bytes(whole)
    one = one or disk(folder)
    assert find(one, LONG, 0) is None
    is_anybodys = before_the_scan and not whole.startswith(b"qwen-kv\1")
    assert files(folder) == ([file] if is_anybodys else [])
    assert one.reach(LONG) == 0
    one.close()


def test_a_file_under_anothers_name_is_not_used(tmp_path):
    keep(disk(tmp_path), copy_of(LONG), copy_of(LONG[::-1]))
    one, other = files(tmp_path)
    other.write_bytes(one.read_bytes())
    one.unlink()
    again = disk(tmp_path)
    assert find(again, LONG, 0) is None
    assert find(again, LONG[::-1], 0) is None
    again.close()


def test_a_file_that_somebody_has_deleted_is_a_miss(tmp_path, caplog):
    one = disk(tmp_path)
    one.put(copy_of(LONG))
    one.wait(10)
    files(tmp_path)[0].unlink()
    assert find(one, LONG, 0) is None
    assert "somebody has deleted" in caplog.text
    one.close()


def test_there_is_never_more_than_asked_for(tmp_path):
    one = disk(tmp_path, limit=10_000)
    for number in range(20):
        tokens = [number, *range(300)]
        if one.reach(tokens) < len(tokens):
            one.put(copy_of(tokens))
            one.wait(10)
            assert not one.busy
        assert sum(file.stat().st_size for file in files(tmp_path)) <= 10_000
    assert find(one, [19, *range(300)], 0), "the last is there"
    assert find(one, [0, *range(300)], 0) is None
    one.close()


def test_a_smaller_limit_holds_from_the_start(tmp_path):
    keep(disk(tmp_path), *(copy_of([number, *range(300)]) for number in range(10)))
    one = disk(tmp_path, limit=6_000)
    assert 0 < sum(file.stat().st_size for file in files(tmp_path)) <= 6_000
    one.close()


def test_no_more_is_written_in_a_day_also_over_restarts(tmp_path):
    now = [100 * DAY]
    one = disk(tmp_path, per_day=3_000, clock=lambda: now[0])
    keep(one, copy_of(LONG))
    one = disk(tmp_path, per_day=3_000, clock=lambda: now[0])
    assert not one.ready
    now[0] += DAY
    assert one.ready
    one.close()


def test_a_longer_conversation_replaces_its_beginning(tmp_path):
    one = disk(tmp_path)
    for length in (300, 400, 500):
        one.put(copy_of(LONG[:length]))
        one.wait(10)
        assert not one.busy
    assert len(files(tmp_path)) == 1
    one.close()


@pytest.mark.parametrize(("limit", "left"), [(1 << 20, [1]), (5_000, [0])], ids=["room for both", "no room for both"])
def test_a_power_cut_while_a_longer_conversation_is_written_leaves_the_shorter_one(tmp_path, monkeypatch, limit, left):
    one, seen = disk(tmp_path, limit=limit), []
    one.put(copy_of(LONG[:400]))
    one.wait(10)
    assert not one.busy
    fsync = os.fsync
    monkeypatch.setattr(kv_file.os, "fsync", lambda handle: (seen.append(len(files(tmp_path))), fsync(handle)))
    keep(one, copy_of(LONG[:500]))
    assert seen[:1] == left
    assert len(files(tmp_path)) == 1


def test_where_space_is_short_the_shorter_one_makes_room_for_the_longer(tmp_path, monkeypatch):
    one = disk(tmp_path)
    one.put(copy_of(LONG[:400]))
    one.wait(10)
    assert not one.busy
    room = kv_folder._SPACE + files(tmp_path)[0].stat().st_size + 1000

    def statvfs(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(f_frsize=1, f_bavail=room - sum(file.stat().st_size for file in files(folder)))

    monkeypatch.setattr(kv_folder.os, "statvfs", statvfs)
    keep(one, copy_of(LONG[:500]))
    one = disk(tmp_path)
    assert find(one, LONG[:500], 0)[1] == 500
    one.close()


def test_a_full_disk_is_told_once_and_tried_again_later(tmp_path, monkeypatch, caplog):
    now = [0.0]
    one = disk(tmp_path, clock=lambda: now[0])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kv_file.os, "fsync", full)
    one.put(copy_of(LONG))
    one.wait(10)
    assert not one.ready
    assert "No space left on device" in caplog.text
    assert list(tmp_path.glob("*.new")) == files(tmp_path) == []
    assert find(one, LONG, 0) is None
    monkeypatch.undo()
    now[0] += 1000
    assert one.ready
    assert one.reach(LONG) == 0
    keep(one, copy_of(LONG))
    assert len(files(tmp_path)) == 1


def test_a_folder_that_another_daemon_uses_is_left_alone(tmp_path):
    one = disk(tmp_path)
    with pytest.raises(OSError, match="used by another qwen-edge"):
        disk(tmp_path)
    one.close()
    disk(tmp_path).close()


def test_a_folder_in_which_others_may_write_is_not_used(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(OSError, match="others may write"):
        disk(tmp_path)


def test_files_are_nobody_elses_to_read(tmp_path):
    keep(disk(tmp_path / "new"), copy_of(LONG))
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    assert files(tmp_path / "new")[0].stat().st_mode & 0o077 == 0


def test_what_is_just_being_written_is_waited_for(tmp_path, monkeypatch):
    may_write = threading.Event()
    fsync = os.fsync

    def slow(handle: int) -> None:
        may_write.wait()
        fsync(handle)

    monkeypatch.setattr(kv_file.os, "fsync", slow)
    one = disk(tmp_path)
    one.put(copy_of(LONG))
    assert one.busy
    assert not one.ready
    timer = threading.Timer(0.05, may_write.set)
    timer.start()
    assert find(one, LONG, 0)[1] == len(LONG)
    one.close()


WRITER = """
import sys
from pathlib import Path
from qwen_edge.kv.disk_tier import Copy, DiskTier
one = DiskTier(Path(sys.argv[1]), "model a", limit=400_000, per_day=1 << 60, cell=4)
print("go", flush=True)
for number in range(1_000_000):
    tokens, start = [number % 7, *range(number % 50, 9_000)], 1000 * (number % 3)
    one.put(Copy(tokens, start, b"".join(token.to_bytes(4, "little") for token in tokens[start:]), 1))
    one.wait(10)
    assert not one.busy
"""


def test_killed_at_a_hundred_moments_of_writing_nothing_loads_wrong(tmp_path):
    moments, drafts, loaded = random.Random(4), 0, 0
    for _ in range(100):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as writer:
            assert writer.stdout.readline() == b"go\n"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(moments.uniform(0.001, 0.03))
            writer.send_signal(signal.SIGKILL)
        drafts += len(list(tmp_path.glob("*.kv.new")))
        one = disk(tmp_path, limit=400_000)
        left = list(tmp_path.glob("*.kv.new"))
        assert not any(draft.stat().st_size for draft in left)  # killed before its mark was written: anybody's
        for file in files(tmp_path):
            head = kv_file.read_head(file)
            tokens = list(array("i", head.tokens))
            copy, until = find(one, tokens, head.start)
            assert until == len(tokens)
            assert bytes(copy.cells) == cells_of(tokens, copy.start)
            loaded += 1
        one.close()
    assert loaded
    assert drafts, "no moment was in the middle of a file"


def home(folder: Path, **options: int) -> Home:
    """Cells whose memory outlives them."""
    return Home(size=400, disk=disk(folder), **options)


def write(one: Home, least: int = 2) -> None:
    while one.manager.write(least) or one.manager.writing:
        one.disk.wait(10)


def test_what_two_have_asked_for_is_written_while_idle_and_the_rest_when_the_engine_goes(tmp_path):
    first, second = ([*LONG[:100], *[number] * 20] for number in (7, 8))
    one = home(tmp_path)
    one.remember(first)
    write(one)
    assert files(tmp_path) == []
    one.remember(second)
    write(one)
    assert len(files(tmp_path)) == 1
    one.manager.leave(10, lambda: 0.0)
    other = home(tmp_path)
    assert other.known(first) == other.known(second) == 120
    other.check()
    other.disk.close()


def test_what_is_asked_for_again_after_others_were_written_is_written_then(tmp_path):
    one = home(tmp_path)
    one.remember(LONG[:100])
    write(one)
    assert files(tmp_path) == []
    one.remember(LONG[:100])
    write(one)
    assert len(files(tmp_path)) == 1
    one.disk.close()


def test_written_is_written_once(tmp_path):
    one = home(tmp_path)
    for _ in range(3):
        one.remember(LONG[:100])
        write(one, least=0)
    assert len(files(tmp_path)) == 1
    before = files(tmp_path)[0].stat().st_ino
    one.remember(LONG[:100])
    write(one, least=0)
    assert files(tmp_path)[0].stat().st_ino == before
    one.disk.close()


def test_what_there_is_no_memory_to_copy_is_not_written_and_ends_nothing(tmp_path):
    one = Home(size=400, disk=disk(tmp_path))
    one.remember(list(range(100)))
    one.store.save = lambda sequence, start, end: None
    assert not one.manager.write(least=0)
    one.manager.leave(10, lambda: 0.0)
    assert not list(tmp_path.glob("*.kv"))


def test_who_leaves_in_the_middle_of_writing_writes_the_rest_too(tmp_path, monkeypatch):
    one = home(tmp_path)
    for tokens in (LONG[:100], LONG[200:300]):
        one.remember(tokens)
    fsync = os.fsync
    monkeypatch.setattr(kv_file.os, "fsync", lambda handle: (threading.Event().wait(0.1), fsync(handle)))
    assert one.manager.write(least=0)
    assert one.manager.writing
    one.manager.leave(10, lambda: 0.0)
    assert len(files(tmp_path)) == 2


def test_the_few_tokens_in_which_prompt_and_history_differ_are_not_written_twice(tmp_path):
    one = home(tmp_path)
    one.remember([*LONG[:200], 1001, 1002])  # as a prompt ends, and as the next turn shows it
    one.remember([*LONG[:200], 2001, *LONG[200:240]])
    write(one, least=0)
    assert len(files(tmp_path)) == 1
    one.disk.close()
    other = home(tmp_path)
    assert other.known([*LONG[:200], 2001, *LONG[200:240]]) == 241
    other.disk.close()


def test_what_falls_out_of_memory_under_load_is_written_too(tmp_path):
    one = home(tmp_path, spare=0, host_tier_cells=100)
    first, second, third = ([number] * 90 for number in (1, 2, 3))
    one.remember(first)
    one.remember(first)
    for tokens in (second, second, third, third):
        one.remember(tokens)
        one.disk.wait(10)
    one.remember([4] * 90)
    write(one)
    assert one.known(first) == 90
    one.check()
    one.disk.close()


def test_a_copy_is_not_written_when_a_longer_one_takes_its_place(tmp_path):
    one = home(tmp_path, spare=0, host_tier_cells=400)
    for length in (90, 100, 120):
        one.remember(LONG[:length])
        while one.manager.prepare():
            one.disk.wait(10)
        assert files(tmp_path) == []
    assert [copy.size for copy in one.manager.host_tier.copies] == [120]
    write(one)
    assert len(files(tmp_path)) == 1
    one.disk.close()


def test_what_goes_on_from_others_is_written_after_them(tmp_path):
    one = home(tmp_path, spare=0, host_tier_cells=400)
    first, second = ([*LONG[:100], *[number] * 40] for number in (1, 2))
    one.remember(first)
    one.remember(first)
    sequence = one.begin(second)
    one.compute(sequence, 140)
    for _ in range(2):
        one.manager.tidy()  # the first one's end leaves the cache, for the host tier
    one.park(sequence)
    assert sum(copy.size for copy in one.manager.host_tier.copies) == 40
    assert one.manager.write()
    one.disk.wait(10)
    assert [copy.start for copy in one.disk.copies] == [0]
    write(one)
    one.disk.close()
    other = home(tmp_path)
    assert other.known(first) == 139  # a single token is sooner computed than read
    other.disk.close()


def test_at_the_end_what_is_worth_most_is_written_first_each_beginning_before_its_end(tmp_path):
    one = home(tmp_path)
    pinned, often, once = [7] * 100, [8] * 100, [9] * 100
    for tokens in (once, pinned, often, often):
        one.remember(tokens)
    one.manager.pins.pin(pinned, 1000)
    put, order = one.disk.put, []
    one.disk.put = lambda copy: order.append((copy.tokens[0], copy.start)) or put(copy)
    one.manager.leave(10, lambda: 0.0)
    assert order == [(7, 0), (8, 0), (9, 0)]


@pytest.mark.parametrize("host_tier_cells", [0, 1000])
@pytest.mark.parametrize("spare", [0, 1000])
def test_all_of_some_conversations_are_there_after_a_stop(tmp_path, host_tier_cells, spare):
    """Each of which begins as the others do, and is long enough to be cut into pieces."""
    prompts = [
        [1, 2, 3, 4, 5, 6, 7, *[100 + number] * 50, *range(1000 * number, 1000 * number + 300)] for number in range(8)
    ]
    one = Home(size=4000, sequences=16, spare=spare, host_tier_cells=host_tier_cells, disk=disk(tmp_path))
    for tokens in prompts:
        one.remember(tokens)
        write(one)
    before = [one.known(tokens) for tokens in prompts]
    one.manager.leave(10, lambda: 0.0)
    other = Home(size=4000, sequences=16, disk=disk(tmp_path))
    assert [other.known(tokens) for tokens in prompts] == before
    if host_tier_cells or spare:
        assert before == [len(tokens) for tokens in prompts]
    other.check()
    other.disk.close()


@pytest.mark.parametrize(
    ("options", "why"),
    [({"per_day": 2_000}, "bytes_per_day is used up"), ({"limit": 2_000}, "remember.bytes is too small")],
)
def test_what_is_not_written_at_the_end_is_one_line_in_the_log(tmp_path, caplog, options, why):
    one = Home(size=2000, sequences=16, disk=disk(tmp_path, **options))
    for number in range(6):
        one.remember([number] * 200)
    one.manager.leave(10, lambda: 0.0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert why in line
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 4_000


def test_where_there_is_no_memory_for_copies_at_the_end_that_is_said(tmp_path, caplog):
    one = Home(size=2000, sequences=16, disk=disk(tmp_path))
    one.remember([1] * 200)
    one.store.save = lambda *_: None
    one.manager.leave(10, lambda: 0.0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "no memory" in line
    assert "remember.bytes" not in line


def test_where_the_beginning_of_a_copy_is_not_known_any_more_that_is_said(tmp_path, caplog):
    one = home(tmp_path, host_tier_cells=400)
    one.manager.host_tier.put(copy_of(LONG[:100], 40))
    one.manager.leave(10, lambda: 0.0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "100 tokens of 1 conversations are not written down: the tokens before them have left memory"


def test_where_there_is_no_time_at_the_end_that_is_said(tmp_path, caplog):
    one = home(tmp_path)
    one.remember([1] * 100)
    one.manager.leave(0, lambda: 0.0)
    assert "0 s were too short" in caplog.text


def test_a_copy_that_another_leads_to_only_in_part_comes_back(tmp_path):
    keep(disk(tmp_path), copy_of([*LONG[:7], *[9] * 90]), copy_of(LONG[:200], 7))
    one = disk(tmp_path)
    assert find(one, LONG, 0)[1] == 7
    assert find(one, LONG, 7)[1] == 200
    one.close()


def test_what_is_pinned_in_copies_only_is_written_too(tmp_path):
    one = home(tmp_path, spare=0, host_tier_cells=400)
    one.remember(LONG[:100])
    one.begin([8] * 20)
    one.manager.tidy()
    assert one.store.used == 0
    one.manager.pins.pin(LONG[:100], 1000)
    one.manager.review()
    write(one)
    assert one.disk.reach(LONG[:100]) == 100
    one.disk.close()
