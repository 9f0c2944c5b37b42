"""Processes of our own get the path and the environment they need."""

import os
import subprocess

from qwen_edge.spawn import python_command, with_huge_pages


def test_the_engine_asks_for_huge_pages_and_keeps_everything_else():
    environment = with_huge_pages({"HOME": "/root", "LANG": "C"})
    assert environment == {"HOME": "/root", "LANG": "C", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def test_what_the_user_tuned_comes_last_and_so_wins():
    environment = with_huge_pages({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1:glibc.malloc.hugetlb=0"


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
