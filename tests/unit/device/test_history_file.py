"""The files of the device's history: bounded, and whatever is in them, what is written is read."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.device.history_file import HistoryFile, Sample

NUMBER = st.none() | st.floats(0, 1e10, allow_nan=False)
SAMPLES = st.lists(
    st.builds(
        Sample,
        at=st.integers(1, 10**10),
        celsius=NUMBER,
        target=NUMBER,
        watts=NUMBER,
        duty=NUMBER,
        hertz=NUMBER,
        tokens_per_second=st.floats(0, 1e6),
        pending=st.integers(0, 100),
        memory=st.none() | st.integers(1, 2**40),
    ),
    max_size=8,
)
LINES = st.binary(max_size=60) | st.sampled_from(
    [
        b"[1,2,3,4,5,6,7,8,9]\n",  # a sample
        b"[1,2,3,4,5,6,7,8]\n",
        b"[1,2,3,4,5,6,7,8,9,10]\n",
        b"[1e999,2,3,4,5,6,7,8,9]\n",
        b"[1,2,3,4,5,6,7,8,-9]\n",
        b"[1,2,3,4,5,6,7,8,1e12]\n",
        b"[1,2,3,4,5,6," + b"9" * 400 + b",8,9]\n",  # no float holds it
        b"[1,2,3,4,5,6,7," + b"9" * 20 + b",9]\n",
        b'{"at":5}\n',
        b"[[[[[[",
        b"\0" * 50,
        b"\r\n\n",
        b"\xff\xfe\n",
    ]
)


def sample(at: int, **values) -> Sample:
    return Sample(at=at, **{"celsius": 50.5, "watts": 7.25, "duty": 1.0, "memory": 600_000_000, **values})


def bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


@given(batches=st.lists(SAMPLES, max_size=4), foreign=st.lists(LINES, max_size=8))
def test_what_is_written_is_read_whatever_was_in_the_file(batches, foreign, tmp_path_factory):
    folder = tmp_path_factory.mktemp("history")
    (folder / "minutes.jsonl").write_bytes(b"".join(foreign))
    (folder / "minutes.old.jsonl").write_bytes(b"".join(reversed(foreign)))
    before = HistoryFile(folder).read()
    assert all(isinstance(one.pending, int) and one.at > 0 for one in before)
    for batch in batches:
        file = HistoryFile(folder)
        file.append(batch)
        file.close()
    written = [one for batch in batches for one in batch]
    read = HistoryFile(folder).read()
    assert read[len(read) - len(written) :] == written
    assert len(read) == len(before) + len(written)


@given(batches=st.lists(SAMPLES, max_size=12), most=st.integers(1800, 4000))
def test_the_files_stay_within_their_bytes_and_keep_the_latest(batches, most, tmp_path_factory):
    folder = tmp_path_factory.mktemp("history")
    file = HistoryFile(folder, most)
    for batch in batches:
        file.append(batch)
        assert bytes_in(folder) <= 2 * most
    written, read = [one for batch in batches for one in batch], file.read()
    longest = max((len(msgspec.json.encode(one)) for one in written), default=0)
    assert read == written[len(written) - len(read) :]
    assert len(read) >= min(len(written), most // (longest + 1) - 8), "a whole file of the latest, but a batch"


def test_three_days_and_more_are_kept(tmp_path):
    file = HistoryFile(tmp_path)
    minutes = [sample(1_764_000_000 + 60 * number, hertz=1.510e9, pending=3, target=85.0) for number in range(9 * 1440)]
    for first in range(0, len(minutes), 10):
        file.append(minutes[first : first + 10])
    read = file.read()
    assert len(read) > 3 * 1440
    assert read == minutes[-len(read) :]
    assert bytes_in(tmp_path) < 800_000


def test_a_line_that_a_power_cut_has_torn_spoils_no_other(tmp_path):
    file = HistoryFile(tmp_path)
    file.append([sample(1), sample(2)])
    whole = (tmp_path / "minutes.jsonl").read_bytes()
    (tmp_path / "minutes.jsonl").write_bytes(whole[:-4])
    file.append([sample(3)])
    assert [one.at for one in file.read()] == [1, 3]


def test_a_disk_that_becomes_full_in_the_middle_leaves_nothing_of_the_batch(tmp_path, monkeypatch):
    file = HistoryFile(tmp_path)
    file.append([sample(1)])
    write = os.write

    def fills(handle, data):
        monkeypatch.setattr(os, "write", full)
        return write(handle, data[:20])

    def full(handle, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fills)
    with pytest.raises(OSError, match="No space"):
        file.append([sample(2), sample(3)])
    monkeypatch.undo()
    file.append([sample(4)])
    assert [one.at for one in file.read()] == [1, 4]


def test_only_one_daemon_writes_in_a_folder_and_the_other_is_told(tmp_path):
    file = HistoryFile(tmp_path)
    file.append([sample(1)])
    other = HistoryFile(tmp_path)
    with pytest.raises(OSError, match="another daemon"):
        other.append([sample(2)])
    assert [one.at for one in other.read()] == [1]
    file.close()
    other.append([sample(2)])
    assert [one.at for one in other.read()] == [1, 2]


def test_what_is_no_file_is_an_error_and_holds_up_nobody(tmp_path):
    os.mkfifo(tmp_path / "minutes.jsonl")
    (tmp_path / "minutes.old.jsonl").mkdir()
    with pytest.raises(OSError, match="directory"):
        HistoryFile(tmp_path).read()
    with pytest.raises(OSError, match="no ordinary file"):
        HistoryFile(tmp_path).append([sample(1)])


def test_the_folder_is_private_and_made_when_it_is_needed(tmp_path):
    folder = tmp_path / "state" / "history"
    file = HistoryFile(folder)
    assert file.read() == []
    assert not folder.exists()
    file.append([sample(1)])
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "minutes.jsonl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("value", ["9" * 400, "-" + "9" * 400, "9" * 20, "1e300"])
@pytest.mark.parametrize("place", range(8))
def test_a_number_that_is_too_large_for_a_client_is_passed_over(tmp_path, value, place):
    values = ["1"] * 9
    values[place] = value
    (tmp_path / "minutes.jsonl").write_text(f"[{','.join(values)}]\n[1,2,3,4,5,6,7,8,9]\n")
    assert [sample.memory for sample in HistoryFile(tmp_path).read()] == [8]
