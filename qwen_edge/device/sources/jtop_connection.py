"""Where the lines of jtop's side process come from: a process that we start, or one that systemd starts when we connect
to its socket."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from qwen_edge.device.telemetry import TelemetryError

SERVICE_SOCKET = Path("/run/qwen-edge-jtop.sock")
_REAP_SECONDS = 1.0
_CONNECT_SECONDS = 1.0


class Helper(Protocol):
    """One life of a side process."""

    def fileno(self) -> int:
        """What its lines are read from."""

    def kill(self) -> None:
        """End it now, which whoever reads sees as the end of its lines; from any thread, and more than once."""

    def close(self) -> str:
        """End it if need be, let go of it, and tell how it ended. By the thread that reads."""


class HelperProcess:
    """A process of ours. SIGKILL: it may hang in a way that no other signal ends."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises OSError."""
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._lines = self._process.stdout
        self.pid = self._process.pid

    def fileno(self) -> int:
        return self._lines.fileno()

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it has closed its end, and may be about to go
            self._process.wait(0.1)
        self.kill()
        self._lines.close()
        try:
            code = self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return "it cannot be killed: a driver holds it"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class HelperService:
    """A process of systemd's, at the other end of a socket; it ends when nobody listens any more."""

    def __init__(self, path: Path = SERVICE_SOCKET) -> None:
        """Raises TelemetryError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_CONNECT_SECONDS)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise TelemetryError(
                f"Nobody answers at {path} ({error.strerror or error}). "
                "Start what listens there: sudo systemctl enable --now qwen-edge-jtop.socket"
            ) from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # the other side may be gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> str:
        self.kill()
        self._socket.close()
        return "see: journalctl -u 'qwen-edge-jtop@*'"
