"""Processes of our own import what is ours."""

import os
import subprocess

from qwen_edge.core.python_process import python_command


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
