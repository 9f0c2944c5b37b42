"""Commands of a conversation do no harm to what is no file."""

import io
import os
import stat
from types import SimpleNamespace

import pytest
from rich.console import Console

from qwen_edge.core.errors import UserError
from qwen_edge.talk.commands import run_command
from qwen_edge.talk.talk import Talk


@pytest.fixture
def talk():
    async def yes(_question):
        return True

    return Talk(SimpleNamespace(), Console(file=io.StringIO()), yes)


async def test_a_pipe_is_neither_replaced_nor_waited_for(talk, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for command in ("/save", "/load", "/tools", "/schema"):
        with pytest.raises(UserError):
            await run_command(talk, f"{command} {tmp_path / 'pipe'}")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", ".", "..", "/", "\ud800", "/dev/null"])
async def test_a_name_that_no_file_can_have_is_a_sentence(talk, name):
    with pytest.raises(UserError):
        await run_command(talk, f"/save {name}")
