"""The whole conversion with llama.cpp: what it leaves, how it resumes, and what becomes of it when the world fails."""

import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
from rich.console import Console

from qwen_edge.convert import pipeline
from qwen_edge.convert.importance import Text
from qwen_edge.convert.manifest import manifest_path, read_manifest
from qwen_edge.convert.pipeline import Job, convert
from qwen_edge.convert.tensor_table import read_tensor_table
from qwen_edge.core.checksum import sha256
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import on_console
from tests.checkpoints import save_shards, write_checkpoint

pytestmark = pytest.mark.model


@pytest.fixture
def source(tmp_path):
    write_checkpoint(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "tiny.gguf"


def run(source, out, file_type="Q4_K_M", **changes) -> str:
    """Convert; returns what was said."""
    said = io.StringIO()
    job = Job(source=str(source), file_type=file_type, models=out.parent, output=out, **changes)
    convert(job, on_console(Console(file=said, width=200)))
    return said.getvalue()


def left_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def command(source, out, *more) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "qwen_edge", "convert", str(source), "-o", str(out), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", ["q8_0", "q6_k", "q4_k"])
def test_the_output_head_can_have_a_type_of_its_own(tmp_path, out, tied, head):
    write_checkpoint(tmp_path / "tiny", tied=tied)
    run(tmp_path / "tiny", out, head=head)
    tensors = read_manifest(out).tensors
    assert tensors["token_embd.weight" if tied else "output.weight"].startswith(head.upper())
    assert tensors["blk.0.attn_q.weight"].startswith("Q4_K")
    assert "up to date" in run(tmp_path / "tiny", out, head=head)
    assert "up to date" not in run(tmp_path / "tiny", out)


def test_every_stage_says_how_much_it_has_to_do_and_how_fast_it_was(source, out):
    said = run(source, out)
    for title in (
        "writing GGUF",
        "quantizing to Q4_K_M",
        "checking: every tensor is finite",
        "checksums for the manifest",
    ):
        assert re.search(rf"^{title}.* \([\d.]+ MB\)$", said, re.MULTILINE), title
        assert re.search(rf"^{title}.*: done in [\d.]+ s, [\d.]+ MB/s$", said, re.MULTILINE), title


def test_a_checkpoint_becomes_a_model_and_its_manifest(source, out):
    said = run(source, out)
    assert left_in(out.parent) == ["tiny.gguf", "tiny.gguf.json"]
    manifest = read_manifest(out)
    assert manifest.sha256 == sha256(out)
    assert manifest.bytes == out.stat().st_size
    assert manifest.source == str(source)
    assert {given.name for given in manifest.inputs} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert manifest.types["F32"] == 9
    assert manifest.tensors["blk.0.ffn_up.weight"] == "Q4_K 256x512"
    assert set(manifest.seconds) == {"write", "quantize", "check", "hash"}
    assert manifest.tools["llama.cpp"]
    assert "checked" in said


def test_the_mix_of_types_is_llama_cpps(source, out):
    write_checkpoint(source, layers=4)
    run(source, out)
    kinds = {row.name: row.type for row in read_tensor_table(out)}
    assert kinds["token_embd.weight"] == "Q6_K", "a tied embedding is the output head too"
    assert [kinds[f"blk.{i}.attn_q.weight"] for i in range(4)] == ["Q4_K"] * 4
    for name in ("attn_v", "ffn_down"):
        assert [kinds[f"blk.{i}.{name}.weight"] for i in range(4)] == ["Q4_K", "Q4_K", "Q6_K", "Q6_K"]


@pytest.mark.parametrize("file_type", ["Q4_0", "Q4_K_S", "Q5_K_M", "Q6_K", "Q8_0", "F16", "BF16"])
def test_every_type_offered_can_be_made(source, out, file_type):
    run(source, out, file_type)
    assert read_manifest(out).type == file_type


def test_a_second_run_finds_nothing_to_do(source, out):
    run(source, out)
    before = out.stat().st_mtime_ns
    assert "is up to date" in run(source, out)
    assert out.stat().st_mtime_ns == before


def test_a_changed_checkpoint_is_converted_again(source, out):
    run(source, out)
    before = read_manifest(out).sha256
    write_checkpoint(source, seed=1)
    run(source, out)
    assert read_manifest(out).sha256 != before


def test_other_files_in_the_folder_change_nothing(source, out):
    run(source, out)
    for name in ("notes.txt", "trainer_state.json", "optimizer.bin", "my.jinja"):
        (source / name).write_text("{}")
    (source / "logs").mkdir()
    assert "is up to date" in run(source, out)
    run(source, out, force=True)
    names = {given.name for given in read_manifest(out).inputs}
    assert names == {
        "config.json", "generation_config.json", "merges.txt", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "vocab.json",
    }  # fmt: skip


def test_a_damaged_model_is_made_again(source, out):
    run(source, out)
    good = sha256(out)
    out.write_bytes(out.read_bytes()[:-10] + b"0123456789")
    run(source, out)
    assert sha256(out) == good


def test_the_output_may_be_a_folder(source, tmp_path):
    (tmp_path / "models").mkdir()
    run(source, tmp_path / "models")
    assert left_in(tmp_path / "models") == ["tiny-q4_k_m.gguf", "tiny-q4_k_m.gguf.json"]


def test_the_same_checkpoint_gives_the_same_bytes(source, tmp_path):
    run(source, tmp_path / "a.gguf")
    run(source, tmp_path / "b.gguf")
    assert sha256(tmp_path / "a.gguf") == sha256(tmp_path / "b.gguf")


def test_a_weight_that_is_no_number_leaves_nothing_behind(source, out):
    tensors = write_checkpoint(source)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_shards(source, tensors, 1)
    with pytest.raises(ConversionError, match="not a finite number"):
        run(source, out)
    assert left_in(out.parent) == []


def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(source, out):
    (source / "config.json").write_text("{}")
    process = command(source, out)
    said, complaint = process.communicate()
    assert process.returncode == 2
    assert complaint.count("\n") == 1
    assert complaint.startswith("qwen-edge: ")
    assert "Traceback" not in said + complaint
    assert not out.parent.exists()


def stop_at(source, out, word: str, number: signal.Signals) -> subprocess.Popen:
    """Run the command and send it a signal when its output first mentions `word`."""
    process = command(source, out)
    for line in process.stdout:
        if word in line:
            break
    process.send_signal(number)
    process.communicate()
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("word", ["writing GGUF", "quantizing", "checking"])
def test_interrupted_at_any_stage_the_next_run_finishes_with_the_same_bytes(source, tmp_path, out, word, number):
    run(source, tmp_path / "undisturbed.gguf")
    process = stop_at(source, out, word, number)
    assert process.returncode != 0
    assert not out.exists()
    assert not manifest_path(out).exists()
    run(source, out)
    assert sha256(out) == sha256(tmp_path / "undisturbed.gguf")
    assert left_in(out.parent) == ["tiny.gguf", "tiny.gguf.json"]


def test_a_resumed_conversion_does_not_do_finished_stages_again(source, out, monkeypatch):
    stop_at(source, out, "checking", signal.SIGKILL)
    journal = json.loads((out.parent / "tiny.gguf.work" / "journal.json").read_text())
    assert {"write", "quantize"} <= set(journal["seconds"])

    def must_not_run(*_arguments):
        raise AssertionError("a finished stage ran again")

    monkeypatch.setattr(pipeline, "write_gguf", must_not_run)
    monkeypatch.setattr(pipeline, "quantize", must_not_run)
    run(source, out)
    assert read_manifest(out).seconds["quantize"] > 0


def test_a_checkpoint_that_changed_meanwhile_is_not_resumed(source, tmp_path, out):
    stop_at(source, out, "checking", signal.SIGKILL)
    write_checkpoint(source, seed=1)
    run(source, tmp_path / "undisturbed.gguf")
    run(source, out)
    assert sha256(out) == sha256(tmp_path / "undisturbed.gguf")


def test_a_killed_worker_is_told_with_what_to_do(source, out):
    process = command(source, out)
    for line in process.stdout:
        if "quantizing" in line:
            break
    while not (workers := psutil.Process(process.pid).children()):
        assert process.poll() is None, "it ended before its worker was seen"
    (worker,) = workers
    worker.kill()
    _, complaint = process.communicate()
    assert process.returncode == 2
    assert "The step 'quantize' died (SIGKILL" in complaint
    assert left_in(out.parent) == []


def test_two_conversions_to_the_same_file_do_not_mix(source, out):
    (out.parent / "tiny.gguf.work").mkdir(parents=True)
    with (out.parent / "tiny.gguf.work" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConversionError, match="Another conversion is writing"):
            run(source, out)
    run(source, out)


def test_a_folder_that_cannot_be_written_is_named(source):
    with pytest.raises(ConversionError, match="Cannot write to /proc/nowhere"):
        run(source, type(source)("/proc/nowhere/tiny.gguf"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB: the tiny model needs 3 MB and 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_too_little_room_is_told_before_anything_is_written(source, small_disk):
    with pytest.raises(ConversionError, match="Not enough room in"):
        run(source, small_disk / "tiny.gguf")
    assert left_in(small_disk) == []


@pytest.mark.parametrize("free", [1_000_000, 3_200_000])
def test_a_disk_that_fills_up_meanwhile_leaves_nothing_behind(source, small_disk, monkeypatch, free):
    """Once while the GGUF is written by us, once while the quantizer writes."""
    monkeypatch.setattr(pipeline, "check_room", lambda work, needed: None)
    (small_disk / "ballast").write_bytes(b"\0" * (6 * 1024 * 1024 - free))
    with pytest.raises(ConversionError, match="is full"):
        run(source, small_disk / "tiny.gguf")
    assert left_in(small_disk) == ["ballast"]


@pytest.mark.parametrize("left", [0, 12_000, 24_000])
def test_a_disk_that_fills_up_while_importance_is_measured_leaves_nothing_behind(
    source, small_disk, tmp_path, monkeypatch, left
):
    """Once while the text is copied, later while the worker writes what it has measured."""
    run(source, tmp_path / "unquantized.gguf", "BF16")
    monkeypatch.setattr(pipeline, "check_room", lambda work, needed: None)
    free = (tmp_path / "unquantized.gguf").stat().st_size + 8192 + left
    (small_disk / "ballast").write_bytes(b"\0" * (6 * 1024 * 1024 - free))
    with pytest.raises(ConversionError, match="is full"):
        run(source, small_disk / "tiny.gguf", text=Text("prose", "The lamp is on. " * 600), threads=1)
    assert left_in(small_disk) == ["ballast"]
