"""The daemon's end of the socket pair to the engine, and how the engine's life ends."""

import asyncio
import errno
import signal
import socket
import sys
from pathlib import Path

import pytest

from qwen_edge.core.errors import CrashedError
from qwen_edge.protocol.framing import encode
from qwen_edge.protocol.messages import Abort, Failed, Load, Started
from qwen_edge.supervisor.engine_process import EngineProcess
from qwen_edge.supervisor.engine_session import EngineSession, Link, load_error


async def test_what_a_dying_engine_has_said_is_heard_also_if_it_was_written_to_meanwhile():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    heard: list = []
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(lambda: Link(ours, heard.append), sock=ours)
    said = [Started(1), Failed(1, "engine", "the GPU has fallen off the bus")]
    with theirs:
        theirs.sendall(encode(said))
    link.send([Abort(2)])  # fails, before anything has been read
    await link.closed
    assert heard == said


class Program(EngineProcess):
    """A process that runs `code` instead of the engine; `theirs` is its end of the socket pair."""

    def __init__(self, monkeypatch, code: str) -> None:
        start = "import os, signal, socket, sys, time; theirs = socket.socket(fileno=int(sys.argv[1])); "
        monkeypatch.setattr(
            "qwen_edge.core.python_process.python_command",
            lambda _, number: [sys.executable, "-c", start + code, number],
        )
        super().__init__()


async def ended(session: EngineSession, watch) -> str:
    """How it ended."""
    await session.run(LOAD, watch)
    return await session.wait_for_exit()


LOAD = Load("m", 512, 16, 1, 0, "f16", "off", 1.0)


async def nothing() -> None:
    await asyncio.Event().wait()


def session(engine: EngineProcess) -> tuple[EngineSession, list]:
    heard: list = []
    return EngineSession(engine, heard.append), heard


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", f"killed by signal {signal.SIGRTMIN + 3}"),
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL, as the kernel does when memory runs out"),
    ],
)
async def test_how_an_engine_has_ended_is_told(monkeypatch, code, how):
    one, _ = session(Program(monkeypatch, code))
    assert await ended(one, nothing) == how
    assert not one.connected


@pytest.mark.parametrize(
    ("how", "crashed"),
    [
        ("killed by SIGABRT", True),
        ("killed by SIGSEGV", True),
        ("killed by SIGBUS", True),
        ("killed by SIGFPE", True),
        ("killed by SIGILL", True),
        ("killed by SIGKILL, as the kernel does when memory runs out", False),
        ("killed by SIGKILL", False),
        ("killed by SIGTERM", False),
        ("exit code 3", False),
        ("silent for 9 s while loading", False),
    ],
)
def test_a_fault_in_the_code_is_told_from_what_others_did_to_the_engine(how, crashed):
    error = load_error(how, None)
    assert isinstance(error, CrashedError) == crashed
    assert (error.exit_code, str(error)) == (75, f"The engine died while it loaded the model: {how}.")


def test_last_words_decide_whether_another_start_is_of_use():
    assert load_error("memory is short", Failed(None, "engine", "memory is short")).exit_code == 75
    assert load_error("no model", Failed(None, "unservable", "no model")).exit_code == 78


async def test_what_we_kill_is_told_with_our_reason(monkeypatch):
    one, _ = session(Program(monkeypatch, "time.sleep(60)"))

    async def watch() -> None:
        one.kill("silent for 9 s")
        one.kill("another reason, later")

    assert await ended(one, watch) == "silent for 9 s"


async def test_the_engines_own_last_words_are_the_reason_however_it_ends(monkeypatch):
    words = encode([Failed(None, "unservable", "no such model")])
    one, heard = session(Program(monkeypatch, f"theirs.sendall({words!r}); os.kill(os.getpid(), 9)"))
    assert await ended(one, nothing) == "no such model"
    assert one.last_words.code == "unservable"
    assert heard == []


async def test_an_engine_that_closes_its_socket_and_stays_is_killed(monkeypatch):
    monkeypatch.setattr("qwen_edge.supervisor.engine_process._EXIT_SECONDS", 0.05)
    engine = Program(monkeypatch, "theirs.close(); time.sleep(60)")
    one, _ = session(engine)
    assert await ended(one, nothing) == "killed by SIGKILL"
    assert engine.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("nonsense", [b"\x03\0\0\0abc", encode([Started(1)])[:4] + b"\xc1" * 20])
async def test_what_is_no_message_ends_the_engine_and_is_told(monkeypatch, caplog, nonsense):
    one, heard = session(Program(monkeypatch, f"theirs.sendall({nonsense!r}); time.sleep(60)"))
    assert (await ended(one, nothing)).startswith("the engine sent an invalid message: ")
    assert "bug: the engine has sent an invalid message" in caplog.text
    assert heard == []


async def test_an_error_of_ours_beside_the_engine_ends_the_engine_and_not_the_daemon(monkeypatch, caplog):
    async def watch() -> None:
        raise KeyError("a mistake of ours")

    engine = Program(monkeypatch, "time.sleep(60)")
    one, _ = session(engine)
    assert await ended(one, watch) == "killed because of an error in the daemon: KeyError('a mistake of ours')"
    assert "Traceback" in caplog.text
    assert engine.process.returncode == -signal.SIGKILL


def test_a_process_that_cannot_be_started_leaves_no_socket_behind(monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    before = set(Path("/proc/self/fd").iterdir())
    monkeypatch.setattr("subprocess.Popen", full)
    with pytest.raises(OSError, match="temporarily unavailable"):
        EngineProcess()
    assert set(Path("/proc/self/fd").iterdir()) == before
