"""Connections to jtop's helper process: a child process, or a process that systemd starts for each connection to its
socket."""

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
    """One running helper process."""

    def fileno(self) -> int:
        """The descriptor to read its lines from."""

    def kill(self) -> None:
        """End it now; the reader sees the end of its output. From any thread; may be called more than once."""

    def close(self) -> str:
        """End it if it still runs, release it, and return how it ended. Called by the reading thread."""


class HelperProcess:
    """A child process. It is ended by SIGKILL: it may hang in a way that no other signal ends."""

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
        with contextlib.suppress(subprocess.TimeoutExpired):  # it has closed its output and may be about to exit
            self._process.wait(0.1)
        self.kill()
        self._lines.close()
        try:
            code = self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return "it cannot be killed: a driver blocks it"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class HelperService:
    """A process started by systemd, at the other end of a socket; it ends when the connection is closed."""

    def __init__(self, path: Path = SERVICE_SOCKET) -> None:
        """Raises TelemetryError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_CONNECT_SECONDS)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise TelemetryError(
                f"Cannot connect to {path} ({error.strerror or error}). "
                "Start the unit that listens there: sudo systemctl enable --now qwen-edge-jtop.socket"
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
