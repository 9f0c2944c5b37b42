"""What was measured is remembered for this model and for where it was measured, and for nothing else."""

import os

import pytest

from qwen_edge.models.json_store import JsonStore
from qwen_edge.models.tuning import described, keep, recall
from qwen_edge.protocol.messages import Tuning

QUICK, SLOW = Tuning(threads=3, flash_attention="on", batch=256), Tuning(1, "off", 64)
HERE = "here"


def model(folder, content=b"weights", name="m.gguf"):
    file = folder / name
    file.write_bytes(content)
    return file


def test_what_is_kept_is_recalled(tmp_path):
    assert recall(model(tmp_path), tmp_path / "state") == {}
    keep(model(tmp_path), HERE, QUICK, tmp_path / "state")
    assert recall(model(tmp_path), tmp_path / "state") == {HERE: QUICK}


def test_another_model_is_measured_anew_and_every_place_has_its_own(tmp_path):
    keep(model(tmp_path), HERE, QUICK, tmp_path)
    keep(model(tmp_path), "on a GPU", SLOW, tmp_path)
    assert recall(model(tmp_path, name="other.gguf"), tmp_path) == {}
    assert recall(model(tmp_path, b"other weights"), tmp_path) == {}
    assert recall(model(tmp_path), tmp_path) == {HERE: QUICK, "on a GPU": SLOW}


def test_what_was_measured_by_a_version_that_did_not_name_the_device_is_ignored(tmp_path):
    old = f"AMD EPYC, 2 cores; no GPU; x86_64; llama-cpp-python 0.3.36; {model(tmp_path).name}, 7 bytes"
    JsonStore("tuning.json", Tuning, tmp_path).keep(old, SLOW)
    assert recall(model(tmp_path), tmp_path) == {}
    keep(model(tmp_path), HERE, QUICK, tmp_path)
    assert recall(model(tmp_path), tmp_path) == {HERE: QUICK}


def test_measuring_again_replaces_what_was_found_and_leaves_the_rest(tmp_path):
    one, other = model(tmp_path), model(tmp_path, name="other.gguf")
    keep(one, HERE, QUICK, tmp_path)
    keep(other, HERE, QUICK, tmp_path)
    keep(one, HERE, SLOW, tmp_path)
    assert recall(one, tmp_path) == {HERE: SLOW}
    assert recall(other, tmp_path) == {HERE: QUICK}


def test_a_damaged_file_is_a_file_that_is_not_there_and_is_told(tmp_path, caplog):
    keep(model(tmp_path), HERE, QUICK, tmp_path)
    (tmp_path / "tuning.json").write_text('{"half of')
    assert recall(model(tmp_path), tmp_path) == {}
    assert "tuning.json cannot be read" in caplog.text
    keep(model(tmp_path), HERE, QUICK, tmp_path)
    assert recall(model(tmp_path), tmp_path) == {HERE: QUICK}


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path, caplog):
    os.mkfifo(tmp_path / "tuning.json")
    assert recall(model(tmp_path), tmp_path) == {}
    assert "it is not a regular file" in caplog.text


def test_where_nothing_can_be_written_the_log_says_so(tmp_path, caplog):
    (tmp_path / "file").touch()
    keep(model(tmp_path), HERE, QUICK, tmp_path / "file")
    assert "cannot be kept" in caplog.text
    (tmp_path / "state" / "tuning.json").mkdir(parents=True)
    keep(model(tmp_path), HERE, QUICK, tmp_path / "state")
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["tuning.json"]


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        (Tuning(), ""),
        (Tuning(1, "on", 64), "1 thread, flash attention on, batches of 64 tokens"),
        (
            Tuning(2, "small", 0, 1024, 32),
            "2 threads, flash attention on up to 1024 tokens, then off, weights for prompts plain from 32 tokens on",
        ),
        (Tuning(flash_attention="small"), "flash attention on up to 512 tokens, then off"),  # of an earlier version
        (Tuning(flash_attention="off", plain_from=0), "flash attention off, weights for prompts repacked"),
    ],
)
def test_what_was_measured_is_described_in_words(tuning, words):
    assert described(tuning) == words


@pytest.mark.parametrize(
    "wrong", ['{"plain_from": -5}', '{"plain_from": 1e30}', '{"flash_cells": "x"}', '{"threads": -3}', "7"]
)
def test_one_measurement_that_makes_no_sense_costs_no_other_one(tmp_path, caplog, wrong):
    file = model(tmp_path)
    keep(file, HERE, QUICK, tmp_path)
    known = (tmp_path / "tuning.json").read_text().rstrip().removesuffix("}")
    (tmp_path / "tuning.json").write_text(f'{known}, "another, 1 bytes; there": {wrong}}}')
    assert recall(file, tmp_path) == {HERE: QUICK}
    assert "another, 1 bytes; there" in caplog.text
