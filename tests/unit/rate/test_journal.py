"""A record that was appended stays, whatever happens to the line after it."""

import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.core.errors import UserError
from qwen_edge.rate.journal import append, read

RECORDS = [{"line": "rater", "name": "一"}, {"a": 1, "text": "x\ny\u2028 \x00"}, {"b": [1, None]}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "file.jsonl"


def test_what_is_appended_is_read_in_its_order_after_the_first_record(file):
    assert read(file) == []
    for record in RECORDS[1:]:
        append(file, record, first=RECORDS[0])
    assert read(file) == RECORDS


@pytest.mark.parametrize("kept", range(1, 3))
def test_a_line_torn_at_any_byte_loses_that_line_only(file, kept):
    for record in RECORDS:
        append(file, record)
    whole = file.read_bytes()
    ends = [number + 1 for number, byte in enumerate(whole) if byte == 10]
    for cut in range(ends[kept - 1], ends[kept] - 1):
        file.write_bytes(whole[:cut])
        assert read(file) == RECORDS[:kept], cut
        append(file, {"next": 1}, first=RECORDS[0])
        assert read(file) == [*RECORDS[:kept], {"next": 1}], cut


def test_a_record_whose_line_end_alone_is_lost_stays(file):
    append(file, RECORDS[0])
    file.write_bytes(file.read_bytes()[:-1])
    assert read(file) == RECORDS[:1]
    append(file, RECORDS[1])
    assert read(file) == RECORDS[:2]


def test_a_file_with_nothing_but_a_torn_line_begins_anew(file):
    file.parent.mkdir()
    file.write_bytes(b'{"line": "ra')
    assert read(file) == []
    append(file, RECORDS[1], first=RECORDS[0])
    assert read(file) == RECORDS[:2]


def test_zeros_that_a_power_cut_leaves_at_the_end_are_cut_off(file):
    append(file, RECORDS[0])
    with file.open("ab") as out:
        out.write(b"\0" * 5000)
    assert read(file) == RECORDS[:1]
    append(file, RECORDS[1])
    assert read(file) == RECORDS[:2]


@pytest.mark.parametrize("line", ["[1]", "nonsense", "1", "", '{"a": 1} {"b": 2}', "[" * 100_000])
def test_a_damaged_line_in_the_middle_is_told_with_its_number(file, line):
    append(file, RECORDS[0])
    with file.open("a") as out:
        out.write(line + "\n")
    append(file, RECORDS[1])
    with pytest.raises(UserError, match=r"file\.jsonl, line 2: not a JSON object"):
        read(file)


def test_a_file_that_cannot_be_written_or_read_is_told(file, tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        append(file, RECORDS[0])
    with pytest.raises(UserError, match="cannot be read"):
        read(file)
    with pytest.raises(UserError, match="cannot be written: No space left"):
        append(Path("/dev/full"), RECORDS[0])


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(), st.text()))
def test_every_text_comes_back(tmp_path_factory, record):
    file = tmp_path_factory.mktemp("any") / "file"
    append(file, record)
    (found,) = read(file)
    assert found == json.loads(json.dumps(record, ensure_ascii=False).encode(errors="replace"))


def write_many(file: Path, who: int) -> None:
    for number in range(50):
        append(file, {"who": who, "number": number, "text": "x" * 200}, first={"line": "rater"})


def test_two_programs_that_append_at_the_same_time_lose_nothing(file):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(file, who)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    first, *records = read(file)
    assert first == {"line": "rater"}
    for who in range(3):
        assert [one["number"] for one in records if one["who"] == who] == list(range(50))
