"""What a disk refuses is told in one sentence, and nothing is left behind."""

import errno
import os

import pytest

from qwen_edge.convert.workspace import work_folder
from qwen_edge.core.errors import ConversionError


def refused(output, error: OSError) -> str:
    with pytest.raises(ConversionError) as refusal, work_folder(output) as work:
        (work / "begun").write_text("")
        raise error
    assert list(output.parent.iterdir()) == []
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota(tmp_path, number):
    told = refused(tmp_path / "m.gguf", OSError(number, os.strerror(number)))
    assert told == f"The disk of {tmp_path} is full. Make room, or choose another disk with -o."


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EIO])
def test_another_refusal_names_the_file(tmp_path, number):
    told = refused(tmp_path / "m.gguf", OSError(number, os.strerror(number), "/some/file"))
    assert told == f"/some/file: {os.strerror(number)}. Fix that, or choose another place with -o."


def test_a_place_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConversionError, match=r"Cannot write to .*/file/.*: Not a directory\. Choose another place"):
        work_folder(tmp_path / "file" / "m.gguf").__enter__()


def test_a_file_where_the_folder_would_be(tmp_path):
    (tmp_path / "m.gguf.work").write_text("")
    with pytest.raises(ConversionError, match=r"Cannot write to .*/m\.gguf\.work: File exists"):
        work_folder(tmp_path / "m.gguf").__enter__()


def test_a_bug_is_not_dressed_up_as_a_refusal(tmp_path):
    with pytest.raises(ZeroDivisionError), work_folder(tmp_path / "m.gguf"):
        raise ZeroDivisionError
