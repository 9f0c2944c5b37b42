"""What the file system refuses costs a warning and never the engine; and nothing of other people's is touched."""

import errno
import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qwen_edge.kv import file as kv_file
from qwen_edge.kv import folder as kv_folder
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.llama.identity import model_sha256
from tests.unit.kv.test_disk_tier import LONG, copy_of, disk, files, find, keep, write
from tests.unit.kv.test_manager import Home

REFUSALS = [errno.EROFS, errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE, errno.ENOENT]


def wait(one: DiskTier) -> None:
    """Until all that was to be done has been done."""
    one.wait(10)
    one.pins.written(10)
    assert not one.busy


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize(
    "call", ["utime", "statvfs", "fsync", "mkdir", "stat", "lstat", "unlink", "replace", "rename", "open"]
)
def test_whatever_the_file_system_refuses_requests_are_answered(tmp_path, monkeypatch, caplog, call, number):
    home = Home(size=400, disk=disk(tmp_path))
    for tokens in (LONG[:100], [7, *LONG[:100]]):
        home.remember(tokens)
    home.manager.leave(10, lambda: 0.0)
    home = Home(size=400, disk=disk(tmp_path))
    before = len(caplog.records)

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    target = Path if call in ("mkdir", "stat", "lstat", "unlink", "replace", "rename") else os
    with monkeypatch.context() as broken:
        broken.setattr(target, call, refuse)
        for token in range(3):
            assert home.known(LONG[:100]) in (0, 100)
            prompt = [token + 1000, *LONG[:90]]
            for _ in range(2):
                home.remember(prompt)
            home.manager.pins.pin(prompt, 1000)
            home.manager.review()
            write(home)
            for copy in home.disk.copies[:1]:
                home.disk.remove(copy)
            wait(home.disk)
    told = [one.getMessage() for one in caplog.records[before:]]
    assert len(told) == len({text.partition(": ")[2].partition(": ")[0] for text in told}), "each of them once"
    home.check()
    home.disk.close()


def test_a_card_that_is_remounted_read_only_costs_a_warning(tmp_path):
    """For real: in a mount namespace of its own."""
    script = (
        f"mount -t tmpfs none {tmp_path} && exec {sys.executable} -c 'from {__name__} import on_a_card; on_a_card()'"
    )
    environment = {**os.environ, "CARD": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    inside = ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(inside, capture_output=True, text=True, env=environment, check=False)
    if "mount:" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "Read-only file system" in done.stderr
    assert done.stderr.count("conversations cannot be kept") == 1


def on_a_card() -> None:
    """What the test before does in its own process."""
    card = Path(os.environ["CARD"])
    home = Home(size=400, disk=disk(card / "kept"))
    home.remember(LONG[:100])
    write(home, least=0)
    assert len(files(card / "kept")) == 1
    subprocess.run(["mount", "-o", "remount,ro", str(card)], check=True)
    assert home.known(LONG[:100]) == 100
    for token in range(3):
        prompt = [token + 1000, *LONG[:90]]
        home.remember(prompt)
        home.manager.pins.pin(prompt, 1000)
        assert not home.manager.pins.written(10)
        write(home, least=0)
    for copy in home.disk.copies:
        home.disk.remove(copy)
    home.disk.wait(10)
    home.check()
    home.manager.leave(10, lambda: 0.0)
    again = disk(card / "kept")
    assert find(again, LONG[:100]), "what is there is read"
    again.close()


@pytest.mark.parametrize("name", ["pins.json", "written.json"])
@settings(max_examples=80)
@given(
    data=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["tokens", "until", "day", "bytes"]), inner, max_size=4)
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'[{"tokens": "AAAA", "until": 1e999}]')
@example(b'[{"tokens": "AAAA", "until": 1e300}]')
@example(b'[{"tokens": "AAA=", "until": 5}]')
@example(b'[{"tokens": "AAAAAAA=", "until": 99999999999}]')
@example(b'{"day": 99999999999999999999999999, "bytes": -5}')
@example(b'{"day": 1, "bytes": 1' + b"0" * 5000 + b"}")
@example(b"")
def test_damaged_notes_are_set_aside_and_conversations_are_kept(tmp_path_factory, caplog, name, data):
    folder = tmp_path_factory.mktemp("kept")
    (folder / name).write_bytes(data)
    caplog.clear()
    home = Home(size=400, disk=disk(folder))
    home.remember(LONG[:100])
    home.manager.pins.pin(LONG[:100], 1000)
    write(home, least=0)
    assert home.known(LONG[:100]) == 100
    wait(home.disk)
    home.disk.close()
    aside = list(folder.glob("*.set-aside-1"))
    if aside:
        assert aside[0].read_bytes() == data
        assert "is not used" in caplog.text
    again = disk(folder)
    assert again.pins.holds(LONG[:100])
    again.close()


@pytest.mark.parametrize("name", ["pins.json", "written.json"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_a_folder_a_pipe_or_a_link_in_the_place_of_a_note_is_set_aside(tmp_path, caplog, name, make):
    make(tmp_path / name)
    one = disk(tmp_path)
    one.pins.pin(LONG, 100)
    one.put(copy_of(LONG))
    wait(one)
    assert one.pins.written(10)
    assert stat.S_ISREG((tmp_path / name).lstat().st_mode)
    assert "is not used" in caplog.text
    one.close()


def test_strangers_files_are_neither_read_counted_renamed_nor_deleted(tmp_path):
    hashed = f"{'0123456789abcdef' * 2}.kv"
    strange = {
        "notes.kv": b"my notes", "thesis.new": b"years of work", "letter.kv.new": b"dear", hashed: b"someone's" * 9,
        f"{hashed}.new": b"and another's", "pins.json.new": b"mine", "written.new": b"mine too", "lock": b"a lock",
        "notes.with.our.mark.kv": b"qwen-kv\1" + b"x" * 100,
    }  # fmt: skip
    for name, data in strange.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.kv").mkdir()
    os.mkfifo(tmp_path / f"{'f' * 32}.kv")
    (tmp_path / f"{'e' * 32}.kv").symlink_to(tmp_path / "notes.kv")
    names = {entry.name for entry in tmp_path.iterdir()}
    for _ in range(2):
        one = disk(tmp_path, limit=6_000)
        for number in range(3):
            if one.reach([number, *range(300)]) == 0:
                one.put(copy_of([number, *range(300)]))
                wait(one)
        one.close()
    assert {name: (tmp_path / name).read_bytes() for name in strange} == strange
    assert names <= {entry.name for entry in tmp_path.iterdir()}


@pytest.mark.parametrize("suffix", [".kv", ".kv.new"])
@pytest.mark.parametrize(
    "data", [b"", b"qwen-k", b"qwen-kv", b"qwen-kv\2" + b"x" * 99, b"qwen-kw\1" + b"x" * 99], ids=repr
)
def test_a_file_of_our_name_without_our_whole_mark_is_left_alone(tmp_path, data, suffix):
    strange = tmp_path / f"{'0123456789abcdef' * 2}{suffix}"
    strange.write_bytes(data)
    one = disk(tmp_path, limit=6_000)
    for number in range(3):
        one.put(copy_of([number, *range(300)]))
        wait(one)
    for copy in one.copies:
        one.remove(copy)
    wait(one)
    one.close()
    assert strange.read_bytes() == data


def test_a_draft_that_a_power_cut_left_is_deleted_at_the_next_start(tmp_path):
    draft = tmp_path / f"{'0123456789abcdef' * 2}.kv.new"
    draft.write_bytes(b"qwen-kv\1" + b"half of it")
    disk(tmp_path).close()
    assert not draft.exists()


def test_a_strangers_file_with_the_very_name_of_ours_is_not_overwritten(tmp_path, caplog):
    keep(disk(tmp_path), copy_of(LONG))
    (file,) = files(tmp_path)
    file.write_bytes(b"a thesis")
    one = disk(tmp_path)
    one.put(copy_of(LONG))
    one.wait(10)
    assert not one.ready
    assert file.read_bytes() == b"a thesis"
    assert "is in the way" in caplog.text
    one.close()


def test_all_that_is_ours_is_nobody_elses_to_read(tmp_path):
    old = os.umask(0)
    try:
        for name in ("pins.json", "written.json"):
            (tmp_path / name).write_bytes(b"[]" if name == "pins.json" else b'{"day":0,"bytes":0}')
            (tmp_path / name).chmod(0o666)
        one = disk(tmp_path)
        one.pins.pin(LONG, 100)
        one.put(copy_of(LONG))
        wait(one)
        one.close()
    finally:
        os.umask(old)
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()}
    assert modes.keys() == {"lock", "pins.json", "written.json", files(tmp_path)[0].name}
    assert set(modes.values()) == {0o600}


def test_a_folder_that_is_deleted_is_made_again_with_its_lock_and_all_that_is_remembered(tmp_path):
    folder = tmp_path / "state" / "conversations"
    home = Home(size=600, disk=disk(folder))
    first, second = LONG[:100], [7, *LONG[:100]]
    home.remember(first)
    home.manager.pins.pin(first, 1000)
    write(home, least=0)
    for entry in folder.iterdir():
        entry.unlink()
    folder.rmdir()
    folder.parent.rmdir()
    home.remember(second)
    write(home, least=0)
    assert len(files(folder)) == 2, "what was there is written again"
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(OSError, match="used by another qwen-edge"):
        disk(folder)
    home.disk.pins.written(10)
    home.disk.close()
    again = disk(folder)
    assert again.pins.holds(first)
    again.close()


def test_a_pin_is_written_into_a_folder_that_was_deleted(tmp_path):
    one = disk(tmp_path / "kept")
    (tmp_path / "kept" / "lock").unlink()
    (tmp_path / "kept").rmdir()
    one.pins.pin(LONG, 100)
    assert one.pins.written(10)
    with (tmp_path / "kept" / "lock").open("ab") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    one.close()


def test_where_the_folder_is_anothers_by_now_nothing_is_written_into_it(tmp_path, caplog):
    one = disk(tmp_path / "kept")
    (tmp_path / "kept" / "lock").unlink()
    other = disk(tmp_path / "kept")
    one.put(copy_of(LONG))
    one.wait(10)
    assert not one.ready
    assert "used by another" in caplog.text
    assert files(tmp_path / "kept") == []
    one.close()
    other.close()


def test_what_a_longer_conversation_was_to_replace_is_still_there_when_it_cannot_be_written(tmp_path, monkeypatch):
    one = disk(tmp_path)
    one.put(copy_of(LONG[:300]))
    wait(one)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kv_file.os, "fsync", full)
    one.put(copy_of(LONG))
    one.wait(10)
    assert not one.busy
    assert find(one, LONG)[1] == 300
    one.close()


def test_nothing_waits_for_a_disk_that_hangs(tmp_path, monkeypatch):
    may, statvfs = threading.Event(), os.statvfs
    monkeypatch.setattr(kv_folder.os, "statvfs", lambda path: may.wait() and statvfs(path))
    one = disk(tmp_path)
    one.put(copy_of(LONG))
    one.pins.pin(LONG, 100)
    assert not one.pins.written(0.01)
    one.remove(one.copies[0])
    one.wait(0.01)
    assert one.busy
    one.close()
    may.set()


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[" * 100_000, b"[1, 2]", b'{"a": 3}', None])
def test_a_damaged_note_of_models_is_left_alone_and_the_model_is_read_again(tmp_path, data):
    model, notes = tmp_path / "model.gguf", tmp_path / "models.json"
    model.write_bytes(b"weights")
    if data is None:
        notes.mkdir()
    else:
        notes.write_bytes(data)
    assert model_sha256(model, notes) == hashlib.sha256(b"weights").hexdigest()
    assert notes.is_dir() if data is None else notes.read_bytes() == data


def test_the_note_of_models_is_nobody_elses_to_read(tmp_path):
    model, notes = tmp_path / "model.gguf", tmp_path / "kept" / "models.json"
    model.write_bytes(b"weights")
    assert model_sha256(model, notes) == model_sha256(model, notes)
    assert notes.stat().st_mode & 0o777 == 0o600
