"""A file is replaced as a whole or not at all, and nothing else is left in its folder."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_edge.core import atomic_file


def test_the_new_content_is_there_and_no_draft_is_left(tmp_path):
    file = tmp_path / "notes"
    for data in (b"one", b"", b"another"):
        atomic_file.replace(file, data)
        assert file.read_bytes() == data
    assert list(tmp_path.iterdir()) == [file]


def test_until_the_block_ends_readers_see_the_old_content(tmp_path):
    file = tmp_path / "notes"
    file.write_bytes(b"old")
    with atomic_file.replacing(file) as out:
        out.write(b"new")
        out.flush()
        assert file.read_bytes() == b"old"
        assert Path(out.name).parent == tmp_path
    assert file.read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError(), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_content_and_no_draft(tmp_path, error):
    file = tmp_path / "notes"
    file.write_bytes(b"old")
    with pytest.raises(type(error)), atomic_file.replacing(file) as out:
        out.write(b"half")
        raise error
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_sync_that_fails_leaves_the_old_content_and_no_draft(tmp_path, monkeypatch):
    file = tmp_path / "notes"
    file.write_bytes(b"old")

    def full(_handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="Input/output"):
        atomic_file.replace(file, b"new", durable=True)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    file, synced, fsync = tmp_path / "notes", list[bool](), os.fsync

    def note(handle: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        assert file.exists() == synced[-1]
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    atomic_file.replace(file, b"new")
    assert synced == []
    file.unlink()
    atomic_file.replace(file, b"new", durable=True)
    assert synced == [False, True]


def test_a_private_file_is_only_for_its_user_whatever_the_umask_and_the_old_file_were(tmp_path):
    file = tmp_path / "notes"
    file.write_bytes(b"old")
    file.chmod(0o666)
    before = os.umask(0)
    try:
        with atomic_file.replacing(file, private=True) as out:
            assert os.fstat(out.fileno()).st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_draft_of_this_name_is_nobodys_and_is_not_touched(tmp_path):
    (tmp_path / "draft").write_bytes(b"somebody's")
    with pytest.raises(FileExistsError), atomic_file.replacing(tmp_path / "notes", draft="draft") as out:
        out.write(b"ours")
    assert (tmp_path / "draft").read_bytes() == b"somebody's"
    assert not (tmp_path / "notes").exists()


def test_a_link_is_replaced_and_what_it_leads_to_is_not(tmp_path):
    (tmp_path / "target").write_bytes(b"somebody's")
    (tmp_path / "notes").symlink_to(tmp_path / "target")
    atomic_file.replace(tmp_path / "notes", b"ours", private=True)
    assert (tmp_path / "target").read_bytes() == b"somebody's"
    assert not (tmp_path / "notes").is_symlink()


def test_writers_at_the_same_time_do_not_mix_their_contents(tmp_path):
    file = tmp_path / "notes"
    with atomic_file.replacing(file) as one, atomic_file.replacing(file) as other:
        one.write(b"one")
        other.write(b"other")
    assert file.read_bytes() == b"one", "the outer block ends last"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_refuses_is_an_oserror(tmp_path):
    """A file in place of the folder refuses even root, as a read-only card does."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        atomic_file.replace(tmp_path / "file" / "notes", b"new")


def test_on_a_read_only_card_the_write_is_an_oserror_and_the_old_file_stays(tmp_path):
    """For real: in a mount namespace of its own."""
    (tmp_path / "notes").write_bytes(b"old")
    code = (
        "from pathlib import Path; from qwen_edge.core import atomic_file\n"
        f"try: atomic_file.replace(Path({str(tmp_path / 'notes')!r}), b'new', private=True, durable=True)\n"
        "except OSError as error: print(error.strerror)"
    )
    script = (
        f'mount --bind {tmp_path} {tmp_path} && mount -o remount,bind,ro {tmp_path} && exec {sys.executable} -c "$0"'
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, code],
        capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.stdout == "Read-only file system\n", done.stderr
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"]
