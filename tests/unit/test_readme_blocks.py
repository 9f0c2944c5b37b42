"""Each fenced block of the README says what a test does with it, so that none is left out by mistake."""

import subprocess

import pytest

from tests.readme.blocks import MARKS, README, Block, blocks, warnings

ALL = list(blocks(README.read_text()))


def test_every_block_is_found_and_marked():
    assert len(ALL) == README.read_text().count("\n```") // 2
    assert [block.line for block in ALL if block.mark not in MARKS] == []


@pytest.mark.parametrize("block", [block for block in ALL if block.mark == "needs a GPU"], ids=lambda block: block.line)
def test_what_cannot_be_run_without_a_gpu_is_at_least_a_shell_script(block: Block):
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


def test_blocks_that_say_what_to_type_are_run():
    commands = ("sudo ", "make ", ".venv/", "curl ", "/opt/")
    left_out = [block for block in ALL if block.mark == "output" and block.text.startswith(commands)]
    assert left_out == []


def test_a_line_with_a_warning_is_found_and_that_of_apt_is_not():
    ours = "02:05:29 WARNING qwen_edge.auth.keys: /k holds API keys"
    apts = "WARNING: apt does not have a stable CLI interface. Use with caution in scripts."
    assert warnings(f"1. converting\n\n{apts}\n{ours}\nWARNINGS\n4. done") == [ours]
    assert warnings("") == []
