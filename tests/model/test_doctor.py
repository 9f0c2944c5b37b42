"""The doctor says what is well, what is not, and what to do about it."""

import importlib
import os
import socket
import sys
from pathlib import Path

import msgspec
import psutil
import pytest
from click.testing import CliRunner

import qwen_edge.llama
from qwen_edge.cli.doctor import command
from qwen_edge.config.paths import Place
from qwen_edge.config.schema import EngineConfig
from qwen_edge.convert.manifest import Imatrix, Kept, encode_manifest, manifest_path, read_manifest
from qwen_edge.device.host import gpu
from qwen_edge.llama.plan import plan_memory
from qwen_edge.llama.site import site
from qwen_edge.models.tuning import keep
from qwen_edge.protocol.messages import Tuning
from qwen_edge.supervisor.engine_settings import load_message
from tests.model.conftest import with_values
from tests.served import ServedModel

pytestmark = pytest.mark.model


@pytest.fixture
def settings(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "settings.yaml").write_text(text)
        return str(tmp_path / "settings.yaml")

    return write


def doctor(*arguments: str) -> tuple[int, list[str]]:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output.splitlines()


def line(report: list[str], part: str) -> str:
    (found,) = [line for line in report if part in line]
    return found


def test_a_sound_installation_is_all_well(tiny_model, settings):
    code, report = doctor("--model", str(tiny_model), "-c", settings("server: {port: 0}"), "--verify")
    assert code == 0
    assert line(report, "Python 3.").startswith("ok")
    assert line(report, "C++ compiler").startswith("ok")
    assert "llama-cpp-python" in line(report, "llama.cpp ")
    assert "complete" in line(report, "model ")
    assert "checksum verified" in line(report, "manifest:")
    assert "KV cache" in line(report, "memory:")
    assert not [line for line in report if line.startswith("BAD")]


def test_a_missing_model_is_bad_and_told_how_to_make_one(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("QWEN_EDGE_MODELS", str(tmp_path))
    code, report = doctor("-c", settings("server: {port: 0}"))
    assert code == 1
    assert line(report, "no model to serve").startswith("BAD")
    assert "qwen-edge convert" in report[report.index(line(report, "no model to serve")) + 1]


def test_what_a_conversion_did_to_the_model_is_told(tiny_model, settings, tmp_path):
    model = tmp_path / "m.gguf"
    model.write_bytes(tiny_model.read_bytes())
    made = msgspec.structs.replace(
        read_manifest(tiny_model), vocabulary=Kept(("zh", "en"), 49152, 151669), imatrix=Imatrix("t.txt", "0", 900)
    )
    manifest_path(model).write_bytes(encode_manifest(made))
    code, report = doctor("--model", str(model), "-c", settings("server: {port: 0}"))
    told = line(report, "manifest:")
    assert (code, "49,152 of 151,669 tokens for zh and en, rounded by importance for t.txt, " in told) == (0, True)


def test_what_was_measured_to_be_fastest_is_told_and_so_is_that_nothing_was(
    tiny_model, settings, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    options = ("--model", str(tiny_model), "-c", settings("server: {port: 0}"))
    assert line(doctor(*options)[1], "the fastest settings have not been measured here")[:4] == "note"
    keep(tiny_model, site(-1), Tuning(flash_attention="off", plain_from=24))
    told = line(doctor(*options)[1], "measured to be fastest here")
    assert told.endswith("here: flash attention off, weights for prompts plain from 24 tokens on")


def test_a_damaged_model_is_found(tiny_model, settings, tmp_path):
    model = tmp_path / "m.gguf"
    data = bytearray(tiny_model.read_bytes())
    manifest_path(model).write_bytes(manifest_path(tiny_model).read_bytes())
    model.write_bytes(data[:-1000])
    code, report = doctor("--model", str(model), "-c", settings("server: {port: 0}"))
    assert (code, line(report, "is cut short")[:3]) == (1, "BAD")
    data[-1000] ^= 255
    model.write_bytes(data)
    assert doctor("--model", str(model), "-c", settings("server: {port: 0}"))[0] == 0
    code, report = doctor("--model", str(model), "-c", settings("server: {port: 0}"), "--verify")
    assert (code, line(report, "is not the file its manifest describes")[:3]) == (1, "BAD")


@pytest.mark.parametrize("offset", [0, 4, 8, 16, 24, 60])
def test_a_model_whose_header_is_damaged_is_bad_and_not_loaded(tiny_model, settings, tmp_path, offset):
    data = bytearray(tiny_model.read_bytes())
    data[offset : offset + 8] = b"\xff" * 8
    (tmp_path / "m.gguf").write_bytes(data)
    code, report = doctor("--model", str(tmp_path / "m.gguf"), "-c", settings("server: {port: 0}"))
    assert code == 1
    assert [found for found in report if found.startswith("BAD")] == [line(report, "is not a whole GGUF file")]


def test_a_model_that_llama_cpp_dies_of_is_bad_and_the_doctor_lives(tiny_model, settings, tmp_path):
    data = bytearray(tiny_model.read_bytes())
    key = b"qwen3.attention.head_count"
    place = data.index(key) + len(key) + 4
    data[place : place + 4] = bytes(4)
    (tmp_path / "m.gguf").write_bytes(data)
    code, report = doctor("--model", str(tmp_path / "m.gguf"), "-c", settings("server: {port: 0}"))
    assert (code, len([found for found in report if found.startswith("BAD")])) == (1, 1)
    assert not [found for found in report if "memory:" in found]


def test_an_end_token_that_is_an_ordinary_word_is_worth_a_note(endless_model, settings):
    code, report = doctor("--model", str(endless_model), "-c", settings("server: {port: 0}"))
    note = line(report, "an ordinary word ends every answer")
    assert (code, note[:4]) == (0, "note")
    assert "convert the model again" in report[report.index(note) + 1]


def test_a_context_that_is_shorter_than_the_settings_say_is_worth_a_note(tiny_model, settings):
    code, report = doctor("--model", str(tiny_model), "-c", settings("engine: {context: 1048576}\nserver: {port: 0}"))
    note = "engine.context is 1048576, more than the 4096 tokens of the training: the context has 4096"
    assert (code, line(report, note)[:4]) == (0, "note")
    code, report = doctor("--model", str(tiny_model), "-c", settings("engine: {context: 4096}\nserver: {port: 0}"))
    assert not [line for line in report if "of the training" in line]


def test_a_number_that_nobody_can_compute_with_is_bad(tiny_model, settings, tmp_path):
    file = with_values(tiny_model, tmp_path / "m.gguf", {"qwen3.context_length": 0})
    code, report = doctor("--model", str(file), "-c", settings("server: {port: 0}"))
    assert (code, line(report, "say a context length of 0")[:3]) == (1, "BAD")


def test_a_context_length_beyond_what_llama_cpp_tells_is_well(tiny_model, settings, tmp_path):
    file = with_values(tiny_model, tmp_path / "m.gguf", {"qwen3.context_length": 3_000_000_000})
    code, report = doctor("--model", str(file), "-c", settings("engine: {context: 512}\nserver: {port: 0}"))
    assert (code, line(report, "memory: ")[:2]) == (0, "ok")


def test_a_model_whose_path_is_no_text_is_bad(tiny_model, settings, tmp_path):
    file = os.fsdecode(bytes(tmp_path) + b"/m\xff.gguf")
    Path(file).symlink_to(tiny_model)
    code, report = doctor("--model", file, "-c", settings("server: {port: 0}"))
    assert (code, line(report, "no model to serve")[:3]) == (1, "BAD")
    assert r"m\udcff.gguf cannot be used" in report[report.index(line(report, "no model to serve")) + 1]


def test_a_model_without_manifest_is_worth_a_note(tiny_model, settings, tmp_path):
    (tmp_path / "m.gguf").symlink_to(tiny_model)
    code, report = doctor("--model", str(tmp_path / "m.gguf"), "-c", settings("server: {port: 0}"))
    assert (code, line(report, "no manifest beside the model")[:4]) == (0, "note")


def test_a_plan_that_does_not_fit_is_bad_with_the_arithmetic(tiny_model, settings, monkeypatch):
    little = psutil.virtual_memory()._replace(available=50_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    code, report = doctor("--model", str(tiny_model), "-c", settings("server: {port: 0}"))
    memory = line(report, "memory:")
    assert (code, memory[:3]) == (1, "BAD")
    assert "weights" in memory
    assert "; 50 MB available: " in memory
    assert "MB too many" in memory


def test_a_shorter_context_that_would_fit_is_named(tiny_model, settings, monkeypatch):
    monkeypatch.setattr("qwen_edge.cli.doctor.available_bytes", lambda: plan.total - 1)
    options = ("--model", str(tiny_model), "-c")
    text = "server: {port: 0}\nengine: {kv_type: f16, context: %d}"
    plan = plan_memory(load_message(EngineConfig(context=4096, kv_type="f16"), tiny_model), 1 << 40)
    code, report = doctor(*options, settings(text % 4096))
    remedy = report[report.index(line(report, "memory:")) + 1]
    assert (code, "set engine.context: 3840" in remedy) == (1, True), remedy
    assert doctor(*options, settings(text % 3840))[0] == 0


def test_little_memory_beside_a_running_daemon_is_a_note_that_says_so(tiny_model, settings, monkeypatch):
    with ServedModel(tiny_model, "--context", "512") as served:
        little = psutil.virtual_memory()._replace(available=50_000_000)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
        port = served.address.rpartition(":")[2]
        code, report = doctor("--model", str(tiny_model), "-c", settings(f"server: {{port: {port}}}"))
    memory = line(report, "memory:")
    assert (code, memory[:4]) == (0, "note")
    assert "the running daemon holds part of the rest" in memory


def test_bindings_that_cannot_be_loaded_are_bad_and_nothing_else_fails(tiny_model, settings, monkeypatch):
    monkeypatch.setattr("qwen_edge.llama", qwen_edge.llama)  # to be put back: a module made anew takes its place
    for name in [name for name in sys.modules if name.startswith("qwen_edge.llama")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    code, report = doctor("--model", str(tiny_model), "-c", settings("server: {port: 0}"))
    assert code == 1
    assert [line for line in report if line.startswith("BAD")] == [line(report, "llama-cpp-python is not installed")]
    assert f"{sys.executable} -m pip install llama-cpp-python==" in line(report, "is not installed")


def test_a_port_in_use_is_bad_unless_it_is_ours(tiny_model, settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        taken.settimeout(0)
        code, report = doctor("--model", str(tiny_model), "-c", settings(f"server: {{port: {port}}}"))
    assert (code, line(report, "cannot listen on")[:3]) == (1, "BAD")
    with ServedModel(tiny_model, "--context", "512") as served:
        port = served.address.rpartition(":")[2]
        code, report = doctor("--model", str(tiny_model), "-c", settings(f"server: {{port: {port}}}"))
        assert (code, line(report, "qwen-edge is running on")[:2]) == (0, "ok")


@pytest.mark.parametrize(("required", "mark", "code"), [("false", "note", 0), ("true", "BAD", 1)])
def test_a_gpu_that_llama_cpp_was_not_built_for_is_told_with_the_command(
    tiny_model, settings, monkeypatch, required, mark, code
):
    found = gpu.Gpu("NVIDIA Jetson Orin Nano", "87")
    monkeypatch.setattr("qwen_edge.cli.doctor.find_gpu", lambda: found)
    file = settings(f"server: {{port: 0}}\nengine: {{require_gpu: {required}}}")
    exit_code, report = doctor("--model", str(tiny_model), "-c", file)
    complaint = line(report, "built without CUDA")
    assert (exit_code, complaint.startswith(mark)) == (code, True)
    assert "-DGGML_CUDA=on" in report[report.index(complaint) + 1]


def test_a_build_that_is_known_to_crash_is_bad_and_told_with_the_command(tiny_model, settings, monkeypatch):
    monkeypatch.setattr(importlib.import_module("qwen_edge.llama.bindings"), "uses_amx", lambda: True)
    code, report = doctor("--model", str(tiny_model), "-c", settings("server: {port: 0}"))
    complaint = line(report, "compiled for AMX")
    assert (code, complaint[:3]) == (1, "BAD")
    assert 'CXXFLAGS="-mno-amx-tile' in report[report.index(complaint) + 1]


def test_where_a_service_is_installed_the_doctor_looks_where_it_looks(tiny_model, tmp_path, monkeypatch):
    place = Place(tmp_path / "qwen-edge.yaml", tmp_path / "state", tiny_model.parent, True, tmp_path / "bin/qwen-edge")
    place.settings.write_text(f"server: {{port: 0}}\nmodel: {tiny_model}\n")
    monkeypatch.setattr("qwen_edge.cli.doctor.find_place", lambda file: place)
    code, report = doctor()
    assert code == 0
    assert report[0] == f"ok    checking the service: settings {place.settings}, state folder {place.state}"
    assert line(report, "model ").startswith(f"ok    model {tiny_model}: ")
    other = line(report, "The service runs")
    installation = f"this command belongs to the installation in {sys.prefix}."
    assert other == f"note  The service runs {place.program}, but {installation}"
    assert report[report.index(other) + 1] == f"       -> sudo {place.program} doctor"
