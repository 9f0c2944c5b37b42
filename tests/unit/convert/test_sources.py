"""A SOURCE that is a file is told as what it is; a pipe keeps nobody waiting."""

import os
import zipfile

import pytest

from qwen_edge.convert.hub import fetch
from qwen_edge.core.errors import ConversionError
from tests.checkpoints import write_checkpoint
from tests.unit.convert.editing import refused


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.gguf", b"GGUF\3\0\0\0", "is a GGUF file: it needs no conversion. Serve it: qwen-edge serve --model"),
        ("m", b"GGUF\3\0\0\0", "is a GGUF file"),
        ("m.gguf", b"", "it is empty"),
        ("m.gguf", b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer"),
        ("m.gguf", b"<html>", "is a web page"),
        ("m.pth", b"PK\x03\x04", "is PyTorch's own file"),
        ("pytorch_model.bin", b"\x80\x02", "is PyTorch's own file"),
        ("m.tar.gz", b"\x1f\x8b\x08", "is an archive: unpack it"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "is a file: give the folder it lies in"),
    ],
)
def test_a_file_is_told_as_what_it_is(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=f"{name} .*{said}"):
        fetch(str(tmp_path / name), None, None)


def test_an_archive_is_told_as_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ConversionError, match="is an archive: unpack it, and give the folder"):
        fetch(str(tmp_path / "m.zip"), None, None)


def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConversionError, match="is neither a folder nor a file"):
        fetch(str(tmp_path / "pipe"), None, None)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_pipe_in_place_of_a_file_is_told(tmp_path, name):
    write_checkpoint(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert f"{name} is not a regular file" in refused(tmp_path)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "model.safetensors"])
def test_a_pipe_in_place_of_a_file_that_is_looked_for_is_no_such_file(tmp_path, name):
    write_checkpoint(tmp_path, tokenizer_json=False)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert "has no " in refused(tmp_path)
