"""An emulated Orin Nano with the real jtop service (../shared/tools/jtop_emu).

The service needs Linux's namespaces, a user's or root's, and jetson-stats, which the extra `dev` installs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from importlib.util import find_spec
from pathlib import Path

import psutil

TOOL = Path(__file__).resolve().parents[3] / "shared" / "tools" / "jtop_emu"
TJ = "devices/virtual/thermal/thermal_zone8/temp"
RAILS = "bus/i2c/devices/1-0040/hwmon/hwmon1"


def unusable_board() -> str | None:
    """Why the service cannot run here, if so."""
    if find_spec("jtop") is None:
        return "needs jetson-stats"
    if not shutil.which("unshare"):
        return "needs unshare"
    tried = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "true"], capture_output=True, text=True, check=False
    )
    return f"needs user namespaces: {tried.stderr.strip()}" if tried.returncode else None


class Board:
    """An emulated Orin Nano and its jtop service, which may be started again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "run" / "jtop.sock"
        self.library: Path | None = None  # a folder with another jetson-stats for the service
        self._service: subprocess.Popen[str] | None = None
        self._log: deque[str] = deque(maxlen=100)
        (folder / "run").mkdir()
        subprocess.run([sys.executable, TOOL / "mksys.py", folder / "sys"], check=True)

    def set(self, path: str, value: object) -> None:
        """At once: no reader finds half of it."""
        file = self.folder / "sys" / path
        draft = self.folder / "draft"
        draft.write_text(f"{value}\n")
        draft.replace(file)

    def start(self) -> None:
        """Returns when the service is ready."""
        self.end()
        environment = {**os.environ, "PYTHONPATH": str(self.library or ""), "PYTHONDONTWRITEBYTECODE": "1"}
        self._service = subprocess.Popen(
            [TOOL / "serve.sh", self.folder / "sys", self.folder / "run", sys.executable],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        ready = threading.Event()
        self._listener = threading.Thread(target=self._listen, args=[ready])
        self._listener.start()
        ready.wait()
        assert self._service.poll() is None, "".join(self._log)

    def _listen(self, ready: threading.Event) -> None:
        for line in self._service.stdout:
            self._log.append(line)
            if "service ready" in line:
                ready.set()
        ready.set()

    @property
    def collector(self) -> psutil.Process:
        """The process that reads the sensors: the second child, after the one that answers clients."""
        children = psutil.Process(self._service.pid).children()
        return sorted(children, key=lambda child: child.pid)[1]

    def send(self, what: signal.Signals) -> None:
        """To the service's main process alone."""
        self._service.send_signal(what)
        self._service.wait(30)

    def end(self) -> None:
        """All of it, at once."""
        if self._service:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._service.pid, signal.SIGKILL)
            self._service.wait(30)
            self._listener.join(30)
            self._service.stdout.close()
            self._service = None
