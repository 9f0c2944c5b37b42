"""A damaged safetensors file is told as such; what is read is what was written."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from qwen_edge.convert.safetensors import read_header, read_pieces, same_bytes
from qwen_edge.core.errors import ConversionError


@pytest.fixture
def file(tmp_path):
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones((4,), np.float16)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def test_tensors_come_sorted_with_their_bytes(file):
    header = read_header(file)
    assert list(header) == ["a", "b"]
    assert header["b"].shape == (2, 3)
    assert b"".join(bytes(piece) for piece in read_pieces(header["b"])) == np.arange(6, dtype=np.float32).tobytes()


def test_a_large_tensor_is_read_in_pieces(tmp_path):
    values = np.arange(3 << 20, dtype=np.float32)
    save_file({"a": values}, tmp_path / "model.safetensors")
    pieces = [bytes(piece) for piece in read_pieces(read_header(tmp_path / "model.safetensors")["a"])]
    assert len(pieces) > 1
    assert b"".join(pieces) == values.tobytes()


def test_tensors_are_compared_by_value(tmp_path):
    one = np.arange(3 << 20, dtype=np.float32)
    save_file({"a": one, "b": one.copy(), "c": one + 1, "d": one.reshape(2, -1)}, tmp_path / "m.safetensors")
    a, b, c, d = read_header(tmp_path / "m.safetensors").values()
    assert same_bytes(a, b)
    assert not same_bytes(a, c)
    assert not same_bytes(a, d)


@given(st.data())
def test_a_file_cut_anywhere_is_called_damaged(file, data):
    whole = file.read_bytes()
    cut = file.with_name("cut.safetensors")
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ConversionError, match="is damaged"):
        read_header(cut)


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_byte_in_the_header_is_an_explanation_or_harmless(file, data):
    whole = bytearray(file.read_bytes())
    header_end = 8 + int.from_bytes(whole[:8], "little")
    whole[data.draw(st.integers(0, header_end - 1))] = data.draw(st.integers(0, 255))
    file.with_name("bad.safetensors").write_bytes(whole)
    try:
        read_header(file.with_name("bad.safetensors"))
    except ConversionError as error:
        assert "bad.safetensors" in str(error)


def test_trailing_bytes_are_damage_too(file):
    with file.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ConversionError, match="4 bytes more than its header says"):
        read_header(file)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}, "is I8; only BF16, F16, F32 can be converted"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}, r"of shape \[3\] cannot take 4 bytes"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, "does not follow the format"),
        ({"dtype": "F32", "shape": [1]}, "does not follow the format"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}, "cannot take -4 bytes"),
    ],
)
def test_an_impossible_entry_is_explained(tmp_path, entry, message):
    header = json.dumps({"w": entry}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(ConversionError, match=message):
        read_header(file)


def test_overlapping_tensors_are_damage(tmp_path):
    header = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
        }
    ).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 6)
    with pytest.raises(ConversionError, match="do not begin where the tensor before ends"):
        read_header(file)
