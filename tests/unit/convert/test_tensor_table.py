"""Any file at all is read as a GGUF header in bounded time, and told what is wrong with it in one sentence."""

import io
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from qwen_edge.convert.gguf_file import write_gguf
from qwen_edge.convert.tensor_table import read_tensor_table
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import on_console
from qwen_edge.llama.header import what_is_wrong
from tests.checkpoints import write_checkpoint
from tests.unit.convert.editing import plan_of

HEADER = 24  # bytes of magic, version and counts
HUGE = struct.pack("<Q", 1 << 63)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    write_checkpoint(folder / "in")
    write_gguf(plan_of(folder / "in"), folder / "out.gguf", on_console(Console(file=io.StringIO())))
    return folder / "out.gguf"


def told(file) -> str:
    with pytest.raises(ConversionError) as error:
        read_tensor_table(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def replaced(model, offset: int, new: bytes):
    data = bytearray(model.read_bytes())
    data[offset : offset + len(new)] = new
    file = model.with_name("bad.gguf")
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("offset", "new", "said"),
    [
        (0, b"XXXX", "it is no GGUF file"),
        (0, b"PK\x03\x04", "an archive or a file of PyTorch's"),
        (0, b"version https://git-lfs.github.com/spec/v1", "a git-lfs pointer"),
        (0, b"<!DOCTYPE html>", "a web page"),
        (4, struct.pack("<I", 1), "it is of version 1"),
        (4, struct.pack("<I", 4), "it is of version 4"),
        (4, struct.pack(">I", 3), "it is made for big-endian machines"),
        (8, bytes(8), "it holds no tensors"),
        (8, HUGE, "9223372036854775808 tensors"),
        (16, HUGE, "9223372036854775808 keys"),
        (16, bytes(8), "is not a whole GGUF file"),
        (HEADER, HUGE, "is not a whole GGUF file"),
        (HEADER, struct.pack("<Q", 1 << 30), "is not a whole GGUF file"),
    ],
)
def test_a_header_that_cannot_be_is_told(model, offset, new, said):
    assert said in told(replaced(model, offset, new))


def with_key(model, kind: int, value: bytes):
    """A file with one more key, at the beginning."""
    data = model.read_bytes()
    version, tensors, keys = struct.unpack_from("<IQQ", data, 4)
    key = struct.pack("<Q", 3) + b"key" + struct.pack("<I", kind) + value
    file = model.with_name("key.gguf")
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", version, tensors, keys + 1) + key + data[HEADER:])
    return file


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (8, HUGE),  # a text
        (9, struct.pack("<I", 8) + HUGE),  # an array of texts
        (9, struct.pack("<IQ", 8, 1 << 33)),
        (9, struct.pack("<I", 5) + HUGE),  # of numbers
        (9, struct.pack("<IQ", 9, 1) * 50_000),  # of arrays, of arrays, ...
        (9, struct.pack("<IQ", 99, 1)),
        (99, b""),
    ],
)
def test_a_value_that_says_more_than_the_file_can_hold_is_told(model, kind, value):
    assert "is not a whole GGUF file" in told(with_key(model, kind, value))


def test_a_key_more_is_no_damage(model):
    assert len(read_tensor_table(with_key(model, 8, struct.pack("<Q", 2) + b"ab"))) == len(read_tensor_table(model))


def test_a_folder_a_pipe_and_what_is_not_there_are_told(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert "it is a folder" in told(tmp_path / "folder")
    assert "it is no regular file" in told(tmp_path / "pipe")
    assert "it cannot be read: No such file or directory" in told(tmp_path / "none")
    assert what_is_wrong(tmp_path / ("m" * 300)) == "cannot be read: File name too long"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_nobody_may_read_is_told(model, tmp_path):
    (tmp_path / "m.gguf").write_bytes(model.read_bytes())
    (tmp_path / "m.gguf").chmod(0)
    assert "it cannot be read: Permission denied" in told(tmp_path / "m.gguf")


@settings(max_examples=200)
@given(st.data())
def test_a_file_cut_anywhere_is_told(model, data):
    whole = model.read_bytes()
    end = st.integers(0, 12_000) | st.integers(0, len(whole) - 1)
    model.with_name("cut.gguf").write_bytes(whole[: data.draw(end)])
    told(model.with_name("cut.gguf"))


@settings(max_examples=300)
@given(st.integers(0, 12_000), st.binary(min_size=1, max_size=8))
def test_bytes_changed_in_the_header_are_told_or_harmless(model, offset, new):
    try:
        rows = read_tensor_table(replaced(model, offset, new))
    except ConversionError as error:
        assert "\n" not in str(error)
    else:
        assert rows


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_whatever_follows_the_magic_is_told(model, rest):
    model.with_name("rest.gguf").write_bytes(b"GGUF\3\0\0\0" + rest)
    told(model.with_name("rest.gguf"))
