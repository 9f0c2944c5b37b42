"""The unit under a real service manager: ready after a warm-up token, fed watchdog, restart, orderly stop.

Runs `systemd --user` as another user with ../shared/tools/systemd_user, which needs root once. Sandboxing that
only the system manager can do (DynamicUser, Private*, Protect*) is left out there;
tests/unit/daemon/test_unit_file.py checks it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.checkpoints import write_checkpoint
from tests.model.conftest import converted
from tests.served import engine_of, events
from tests.shared.conftest import SHARED

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "systemd" / "qwen-edge.service"
TOOL = SHARED / "tools" / "systemd_user"
NOBODY = 65534
PYTHON = Path("/usr/bin/python3")  # one that another user may run

# what only the manager of the whole system can do
_SYSTEM_ONLY = (
    "DynamicUser StateDirectory ConfigurationDirectory LoadCredential SetCredential OOM Memory(High|Max) "
    "CapabilityBoundingSet AmbientCapabilities Private Device Protect ProcSubset RemoveIPC WantedBy"
).replace(" ", "|")


def _usable() -> str | None:
    """Why the test cannot run here, if so."""
    if os.geteuid() != 0:
        return "needs root to start a service manager as another user"
    if not PYTHON.exists() or not shutil.which("systemctl"):
        return "needs systemd and Debian's Python"
    shown = subprocess.run(
        [PYTHON, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
    )
    if shown.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        return "Debian's Python is another version than this one"
    return None


class Manager:
    """A running `systemd --user` that knows only our unit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {"XDG_RUNTIME_DIR": str(folder / "run"), "PATH": os.environ["PATH"]}
        command = [str(TOOL / "user_manager.sh"), str(folder / "units"), str(folder / "run")]
        with (folder / "manager.log").open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while self.systemctl("list-units").returncode != 0:
            assert self._process.poll() is None, (folder / "manager.log").read_text()
            threading.Event().wait(0.1)

    def systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        command = [*drop, "systemctl", "--user", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60, check=False)

    def shown(self, name: str) -> str:
        return self.systemctl("show", "--value", "-p", name, "qwen-edge").stdout.strip()

    def log(self) -> str:
        return (self.folder / "run" / "service.log").read_text()

    def end(self) -> None:
        self.systemctl("stop", "qwen-edge")
        self._process.send_signal(signal.SIGRTMIN + 24)
        self._process.wait(30)


@pytest.fixture
def manager() -> Iterator[Manager]:
    if why := _usable():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="qe-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "run").mkdir()
        shutil.copytree(TOOL / "units", folder / "units")
        write_checkpoint(folder / "tiny")
        converted(folder / "tiny", folder / "tiny.gguf")
        # an engine that hangs is the watchdog's here, not the daemon's own
        (folder / "settings.yaml").write_text(
            "engine: {hang_seconds: 600, context: 512, threads: 1}\nserver: {port: 0}\n"
        )
        (folder / "units" / "qwen-edge.service").write_text(_unit_for(folder))
        manager = Manager(folder)
        yield manager
        manager.end()


def _unit_for(folder: Path) -> str:
    """Our unit, with this checkout's program and a shorter watchdog."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    start = f"{PYTHON} -m qwen_edge serve --model {folder}/tiny.gguf -c {folder}/settings.yaml"
    unit = re.sub(rf"^({_SYSTEM_ONLY}).*\n", "", UNIT.read_text(), flags=re.MULTILINE)
    unit = re.sub(r"^ExecStart=.*", f"ExecStart={start}", unit, flags=re.MULTILINE)
    unit = re.sub(r"^WatchdogSec=.*", "WatchdogSec=3", unit, flags=re.MULTILINE)
    log = f"StandardOutput=append:{folder}/run/service.log\nStandardError=inherit\n"
    path = f"Environment=PYTHONPATH={ROOT}:{packages} PYTHONDONTWRITEBYTECODE=1\n"
    unit = unit.replace("[Service]\n", f"[Service]\n{log}{path}")
    return unit.replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n")


def wait_for(condition) -> None:
    while not condition():
        threading.Event().wait(0.1)


def test_start_watchdog_and_stop_under_a_real_service_manager(manager):
    started = manager.systemctl("start", "qwen-edge")  # returns once READY has come
    assert started.returncode == 0, manager.log() + (manager.folder / "manager.log").read_text()
    assert manager.shown("ActiveState") == "active"
    assert "tiny  context 512" in manager.shown("StatusText")
    address = re.search(r"http://[\d.:]+", manager.shown("StatusText"))[0]
    with urllib.request.urlopen(f"{address}/health") as response:
        assert json.load(response)["status"] == "ok"

    # the watchdog is fed: longer than its interval nothing happens
    threading.Event().wait(5)
    assert manager.shown("NRestarts") == "0"

    # an engine that makes no progress is not alive, however well HTTP works
    engine = engine_of(int(manager.shown("MainPID")))
    first = manager.shown("MainPID")
    engine.send_signal(signal.SIGSTOP)
    wait_for(lambda: manager.shown("NRestarts") == "1" and manager.shown("ActiveState") == "active")
    assert manager.shown("MainPID") != first
    wait_for(lambda: not psutil.pid_exists(engine.pid))

    # SIGKILL of the daemon: restarted
    os.kill(int(manager.shown("MainPID")), signal.SIGKILL)
    wait_for(lambda: manager.shown("NRestarts") == "2" and manager.shown("ActiveState") == "active")

    # a stop finishes what runs
    stream = _stream(re.search(r"http://[\d.:]+", manager.shown("StatusText"))[0], max_tokens=300)
    first = next(stream)
    assert manager.systemctl("stop", "qwen-edge").returncode == 0
    assert json.loads([first, *stream][-2])["choices"][0]["finish_reason"] in ("length", "stop")
    assert manager.shown("ActiveState") == "inactive"
    assert manager.shown("Result") == "success"


def _stream(address: str, **body) -> Iterator[str]:
    """The data of a streamed answer's events, as they come."""
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "seed": 1, **body}
    request = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        yield from events(response)


def test_a_mistake_in_the_settings_is_not_retried(manager):
    (manager.folder / "settings.yaml").write_text("engin: {}\n")
    assert manager.systemctl("start", "qwen-edge").returncode != 0
    wait_for(lambda: manager.shown("ActiveState") == "failed")
    assert manager.shown("NRestarts") == "0"
    assert "line 1: engin: there is no such setting. Did you mean engine?" in manager.log()


def test_a_damaged_model_is_not_loaded_again_and_again(manager):
    model = manager.folder / "tiny.gguf"
    model.write_bytes(model.read_bytes()[:-100_000])
    assert manager.systemctl("start", "qwen-edge").returncode != 0
    wait_for(lambda: manager.shown("ActiveState") == "failed")
    assert manager.shown("ExecMainStatus") == "78"
    assert manager.shown("NRestarts") == "0"
    assert "could not load" in manager.log()


def test_a_model_that_is_not_there_yet_is_looked_for_again(manager):
    model = manager.folder / "tiny.gguf"
    model.rename(away := manager.folder / "away")
    assert manager.systemctl("start", "qwen-edge").returncode != 0
    wait_for(lambda: "There is no model at" in manager.log())
    away.rename(model)
    wait_for(lambda: manager.shown("ActiveState") == "active")
    assert int(manager.shown("NRestarts")) > 0
