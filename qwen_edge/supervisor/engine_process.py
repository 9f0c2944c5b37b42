"""One engine process and the daemon's end of its socket pair: start, kill, reap."""

from __future__ import annotations

import asyncio
import signal

from qwen_edge.core.python_process import start_with_socket

_EXIT_SECONDS, _REAP_SECONDS, _REAP_PAUSE = 5.0, 10.0, 0.01
SPAWN_DESCRIPTORS = 6  # needed for a moment to start an engine process: two pairs, the null device, and one more


class EngineProcess:
    """An engine process. Created in any thread; an `EngineSession` reads its socket."""

    def __init__(self) -> None:
        """Raises OSError if memory or descriptors are exhausted."""
        self.process, self.socket = start_with_socket("qwen_edge.engine.main")
        self._killed = False  # by the daemon

    def kill(self) -> None:
        self._killed = True
        self.process.kill()

    def how_it_ended(self) -> str | None:
        """Reap the process and say how it ended; None while it is running. Never blocks."""
        code = self.process.poll()
        if code is None:
            return None
        if code == -signal.SIGKILL and not self._killed:
            return "killed by SIGKILL, as the kernel does when memory runs out"
        return killed_by(-code) if code < 0 else f"exit code {code}"


def killed_by(number: int) -> str:
    """How a process ended that this signal has killed."""
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {number}"


async def reap(engine: EngineProcess) -> str:
    """Wait until a process whose end of the socket is closed has ended, and say how. Most processes end within
    milliseconds; one that does not is killed. Uses neither a thread nor a descriptor: none may be left."""
    loop = asyncio.get_running_loop()
    due, stuck = loop.time() + _EXIT_SECONDS, False
    while (how := engine.how_it_ended()) is None:
        if loop.time() >= due and stuck:
            return "the process cannot be killed: a driver holds it"
        if loop.time() >= due:
            due, stuck = loop.time() + _REAP_SECONDS, True
            engine.kill()
        await asyncio.sleep(_REAP_PAUSE)
    return how
