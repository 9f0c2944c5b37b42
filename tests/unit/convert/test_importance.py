"""The text of --imatrix: which files are taken, what is said of others, and what is kept of the measurement."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from qwen_edge.cli import main
from qwen_edge.convert.importance import (
    LEAST_TOKENS,
    Text,
    read_importance,
    read_text,
    save_importance,
    tokens_read,
)
from qwen_edge.convert.pipeline import Job
from qwen_edge.convert.quantize import TYPES, Recipe, check_imatrix
from qwen_edge.core.errors import ConversionError, EngineError

LONG = "The lamp is on. 灯开着。\n" * 200


def test_our_own_text_speaks_both_languages_and_the_format_of_calls():
    own = read_text(None).text
    assert len(own.encode()) > 8 * LEAST_TOKENS
    assert sum("\u4e00" <= letter <= "\u9fff" for letter in own) > 700
    for part in ("<|im_start|>user", "<tool_call>", '{"name": "set_light"', "def hourly", "```json"):
        assert part in own
    assert own.count("<|im_start|>") == own.count("<|im_end|>")


def test_a_file_is_read_as_it_is_and_named_with_its_digest(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_bytes(LONG.replace("\n", "\r\n").encode())
    text = read_text(file)
    assert text == Text(str(file), LONG.replace("\n", "\r\n"))
    assert text.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_mark_that_windows_programs_begin_a_file_with_is_no_text(tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbf" + LONG.encode())
    assert read_text(tmp_path / "mine.txt").text == LONG


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is too short: it has 0 bytes, and at least 512 tokens are needed"),
        (b"x" * (LEAST_TOKENS - 1), "is too short: it has 511 bytes"),
        (b"x" * (1 << 20) + b"x", "has more than 1 MiB"),
        (LONG.encode("gb18030"), "is not UTF-8 text: byte 16 cannot be read"),
        (b"\x89PNG" * 1000, "is not UTF-8 text: byte 0 cannot be read"),
    ],
)
def test_a_text_that_cannot_serve_is_told(tmp_path, content, told):
    file = tmp_path / "mine.txt"
    file.write_bytes(content)
    with pytest.raises(ConversionError) as refusal:
        read_text(file)
    assert str(refusal.value).startswith(f"--imatrix {file} {told}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["missing.txt", ".", "a\0b", "x" * 300, "file/below"])
def test_what_cannot_be_read_is_told_with_how_to_use_our_text(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConversionError, match=r"cannot be read: .+\. Name a text file; or write --imatrix behind"):
        read_text(tmp_path / name)


def test_a_long_file_is_not_read_to_its_end(tmp_path):
    (tmp_path / "long.txt").touch()
    os.truncate(tmp_path / "long.txt", 1 << 40)
    with pytest.raises(ConversionError, match="has more than 1 MiB"):
        read_text(tmp_path / "long.txt")


def test_a_pipe_that_nobody_writes_to_and_an_endless_device_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ConversionError, match=r"cannot be read: it is not a regular file\. Name a text file"):
            read_text(Path(name))


@pytest.mark.parametrize("words", [["--imatrix", "{text}", "{source}"], ["{source}", "--imatrix={text}"]])
def test_on_the_command_line_a_mistake_is_one_sentence_before_anything_is_fetched(tmp_path, capsys, words):
    with pytest.raises(SystemExit) as stopped:
        main("convert", *(word.format(text=tmp_path / "no.txt", source="owner/name") for word in words))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"qwen-edge: --imatrix {tmp_path / 'no.txt'} cannot be read")


def test_without_a_file_behind_it_the_option_means_our_text(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("qwen_edge.cli.convert.read_text", lambda file: asked.append(file) or read_text(None))
    with pytest.raises(SystemExit):
        main("convert", str(tmp_path / "no-checkpoint"), "--imatrix")
    assert asked == [None]


@pytest.mark.parametrize("file_type", TYPES)
@pytest.mark.parametrize("head", [None, "q8_0", "q6_k", "q4_k"])
def test_an_importance_that_would_change_nothing_is_refused(file_type, head):
    if file_type in ("F16", "BF16") or (file_type == "Q8_0" and head in (None, "q8_0")):
        with pytest.raises(ConversionError, match=f"--imatrix would change nothing: {file_type} does not round"):
            check_imatrix(file_type, head)
    else:
        check_imatrix(file_type, head)


def test_a_file_with_importance_has_a_name_of_its_own(tmp_path):
    text = read_text(None)
    assert Job("x", "Q4_K_M", tmp_path, text=text).kind == "Q4_K_M-imatrix"
    assert Job("x", "Q4_K_M", tmp_path, head="q4_k", text=text).kind == "Q4_K_M-head-q4_k-imatrix"
    assert Job("x", "Q4_K_M", tmp_path).kind == "Q4_K_M"


def test_what_was_measured_is_kept_with_the_number_of_tokens(tmp_path):
    importance = {"blk.0.attn_q.weight": np.linspace(0.1, 2, 64, dtype=np.float32), "output.weight": np.ones(3, "f4")}
    save_importance(tmp_path / "imatrix.npz", importance, 1234)
    found = read_importance(tmp_path / "imatrix.npz")
    assert list(found) == list(importance)
    assert all((found[name] == importance[name]).all() and found[name].dtype == np.float32 for name in found)
    assert tokens_read(tmp_path / "imatrix.npz") == 1234


@pytest.mark.parametrize(("tied", "name"), [(True, "token_embd"), (False, "output")])
def test_the_type_of_the_head_is_that_of_the_embedding_where_both_are_one(tied, name):
    assert Recipe("Q4_K_M", "q4_k").types(tied=tied) == {rf"^{name}\.weight$": "Q4_K"}
    assert Recipe("Q4_K_M").types(tied=tied) == {}


@pytest.mark.parametrize("content", [b"", b"noise" * 100, b"PK\x03\x04" + bytes(100)])
def test_what_was_measured_and_is_damaged_is_told_with_what_to_do(tmp_path, content):
    (tmp_path / "imatrix.npz").write_bytes(content)
    with pytest.raises(EngineError, match="Run the same command again"):
        read_importance(tmp_path / "imatrix.npz")
