"""Starts a Python process of this package: like `python -m module`, but without imports from the current folder.

`-m` puts the current folder first on the import path, so the engine would run a file called msgspec.py in the user's
downloads folder. (From Python 3.11 on, `python -P` would suffice.)
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

# signals that mean a fault in the process' code; not SIGKILL, which the kernel sends when memory runs out
FAULTS = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `module.main([...])` with this interpreter."""
    code = (
        f"import sys; sys.path[:1] = sys.path[:1] if sys.path[0] else []; from {module} import main; main(sys.argv[1:])"
    )
    return [sys.executable, "-c", code, *arguments]


def own_command(*arguments: str) -> list[str]:
    """The command `qwen-edge ARGUMENTS` with this interpreter, for a process that must not outlive this one: Linux
    sends it SIGTERM when the thread that has started it ends, however that happens."""
    code = (
        "import ctypes, os, runpy, signal, sys; ctypes.CDLL(None).prctl(1, int(signal.SIGTERM)); "
        f"os.getppid() == {os.getpid()} or sys.exit('the program that needs this one has ended'); "
        "sys.path[:1] = sys.path[:1] if sys.path[0] else []; runpy.run_module('qwen_edge', run_name='__main__')"
    )
    return [sys.executable, "-c", code, *arguments]


def start_with_socket(module: str, *arguments: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start `module.main` with the number of its end of a socket pair as the first argument, followed by `arguments`.

    Returns the process, and this process' end of the socket pair, which is non-blocking. Raises OSError if memory or
    descriptors are exhausted."""
    ours, theirs = socket.socketpair()
    try:
        ours.setblocking(False)
        with theirs:
            command = python_command(module, str(theirs.fileno()), *arguments)
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    except BaseException:
        ours.close()
        raise
    return process, ours
