"""The first command a person types names what is missing, and what installs it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "bootstrap.py"


@pytest.fixture
def bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gives_up(capsys, call) -> str:
    with pytest.raises(SystemExit) as stopped:
        call()
    assert stopped.value.code == 2
    return capsys.readouterr().err


def fake_compiler(folder: Path, script: str) -> None:
    (folder / "c++").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "c++").chmod(0o755)


def test_a_missing_compiler_is_named(bootstrap, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    said = gives_up(capsys, bootstrap._check_compiler)
    assert "no C++ compiler" in said
    assert "sudo apt install build-essential" in said


def test_a_compiler_that_does_not_work_is_named_with_its_complaint(bootstrap, capsys, monkeypatch, tmp_path):
    fake_compiler(tmp_path, "echo 'fatal error: thread: No such file' >&2; exit 1")
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    assert "does not work (fatal error: thread: No such file)" in gives_up(capsys, bootstrap._check_compiler)


def test_a_compiler_that_works_is_enough(bootstrap, monkeypatch, tmp_path):
    fake_compiler(tmp_path, "exit 0")
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    bootstrap._check_compiler()


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_told_with_the_package(bootstrap, capsys, monkeypatch, tmp_path, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    said = gives_up(capsys, lambda: bootstrap._make_venv(tmp_path / "venv"))
    assert f"sudo apt install python{sys.version_info.major}.{sys.version_info.minor}-venv" in said


def test_an_old_python_is_told(bootstrap, capsys, monkeypatch):
    monkeypatch.setattr(bootstrap, "_OLDEST", (9, 9))
    assert "is too old" in gives_up(capsys, bootstrap.main)


def test_a_failing_pip_shows_the_end_of_its_log(bootstrap, capsys, tmp_path):
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\necho 'ERROR: no matching distribution'\nexit 1\n")
    pip.chmod(0o755)
    with pytest.raises(SystemExit):
        bootstrap._install(pip, [])
    shown = capsys.readouterr()
    assert "ERROR: no matching distribution" in shown.out
    assert "Installing failed" in shown.err


def test_flags_of_the_user_win(bootstrap, monkeypatch):
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    assert bootstrap._environment()["CMAKE_ARGS"] == "-DGGML_CUDA=on"
    monkeypatch.delenv("CMAKE_ARGS")
    assert "-DLLAVA_BUILD=OFF" in bootstrap._environment()["CMAKE_ARGS"]


def test_progress_in_a_log_is_a_line_now_and_then(bootstrap, capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(bootstrap.time, "monotonic", lambda: now)
    progress = bootstrap._Progress()
    for i in range(40):
        now += 1.0
        progress.show(f"  [{i}/140] g++ -c llama-{i}.cpp")
    assert capsys.readouterr().out.splitlines() == [
        "    15 s  compiling llama.cpp: 14 of 140 files",
        "    30 s  compiling llama.cpp: 29 of 140 files",
    ]


def test_an_environment_that_is_up_to_date_is_left_alone(bootstrap, tmp_path):
    (tmp_path / ".qwen-edge").write_text(bootstrap._wanted([]) + "\n")
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=True, env={**os.environ, "PATH": ""}
    )
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == [".qwen-edge"]
