"""Processes of our own import what is ours."""

import os
import subprocess

from qwen_edge.core.python_process import own_command, python_command


def test_a_file_in_the_current_folder_is_not_imported(tmp_path):
    here, ours = tmp_path / "here", tmp_path / "ours"
    for folder in (here, ours):
        folder.mkdir()
    (here / "msgspec.py").write_text("raise SystemExit('somebody else wrote this')")
    (ours / "probe.py").write_text("import msgspec\ndef main(arguments): print(arguments, msgspec.__name__)")
    done = subprocess.run(
        python_command("probe", "7"),
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ours)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("['7'] msgspec\n", "", 0)


def test_our_own_command_imports_ours_too_and_gets_its_arguments(tmp_path):
    (tmp_path / "msgspec.py").write_text("raise SystemExit('somebody else wrote this')")
    done = subprocess.run(own_command("--version"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("qwen-edge, version ")


def test_our_own_command_does_not_begin_without_the_program_that_needs_it():
    stranger = own_command("--version")
    done = subprocess.run(["sh", "-c", '"$@"; exit $?', "sh", *stranger], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has ended" in done.stderr
