"""Starting a Python process of our own: like `python -m module`, but not from the current folder.

`-m` puts the current folder first on the path, so a file called msgspec.py in somebody's downloads would be run by the
engine. (`python -P` does the same from Python 3.11 on.)
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

# what ends a process over a fault in its code; not SIGKILL, which the kernel sends when memory runs out
FAULTS = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `module.main([...])` with this interpreter."""
    code = (
        f"import sys; sys.path[:1] = sys.path[:1] if sys.path[0] else []; from {module} import main; main(sys.argv[1:])"
    )
    return [sys.executable, "-c", code, *arguments]


def start_with_socket(module: str, *arguments: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start `module.main` with the number of its end of a socket pair as the first argument, `arguments` behind it.

    Returns the process, and our end, which does not block. Raises OSError where there is no memory or no descriptor for
    another process."""
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
