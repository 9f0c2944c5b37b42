"""`qwen-edge chat` with a real model, which it starts and stops itself."""

import psutil

from tests.pseudo_terminal import PseudoTerminal


async def test_a_conversation_with_a_model_file_begins_and_ends_its_own_daemon(demo_model, tmp_path):
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    with PseudoTerminal("chat", str(demo_model), "--temp", "0", environment=environment) as terminal:
        assert "a private daemon" in await terminal.prompt()
        children = psutil.Process(terminal.process.pid).children(recursive=True)
        assert children
        terminal.send("Hello\r")
        await terminal.until("thought for")
        await terminal.until("Hello!")
        await terminal.prompt()
        next(child for child in children if "serve" in child.cmdline()).kill()
        terminal.send("And again?\r")
        await terminal.until("started again")
        await terminal.until("thought for")
        await terminal.prompt()
        children += psutil.Process(terminal.process.pid).children(recursive=True)
        terminal.send("/exit\r")
        assert await terminal.ended() == 0
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


async def test_ctrl_c_while_the_model_loads_leaves_no_daemon(demo_model, tmp_path):
    with PseudoTerminal("chat", str(demo_model), environment={"XDG_STATE_HOME": str(tmp_path)}) as terminal:
        await terminal.until("loading")
        children = psutil.Process(terminal.process.pid).children(recursive=True)
        assert children
        terminal.send("\x03")
        await terminal.until("Interrupted.")
        assert await terminal.ended() == 130
    assert not [child for child in children if child.is_running()]
