"""A file that a person names is read, or the person is told why not."""

from pathlib import Path

import pytest

from qwen_edge.core.errors import UserError
from qwen_edge.core.given_file import read_bytes


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "given").write_bytes(b"text")
    assert read_bytes(Path("~/given")) == b"text"


def test_what_no_person_can_mean_is_not_read(tmp_path):
    file = tmp_path / "model.gguf"
    with file.open("wb") as out:
        out.truncate(10_000_001)
    with pytest.raises(UserError, match="larger than 10 MB"):
        read_bytes(file)


@pytest.mark.parametrize("name", ["none", "zero\0byte", "~nobody-of-this-name/file"])
def test_what_cannot_be_read_is_a_sentence(name):
    with pytest.raises(UserError, match="cannot be read"):
        read_bytes(Path(name))
