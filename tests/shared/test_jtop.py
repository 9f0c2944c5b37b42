"""jtop as it is: the real service on an emulated board (../shared/tools/jtop_emu), stopped, killed, hung and misled.

The service needs Linux's namespaces, a user's or root's, and jetson-stats, which the extra `dev` installs.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from qwen_edge.core.python_process import python_command
from qwen_edge.device.sources.jtop import Jtop, helper_process
from qwen_edge.device.sources.jtop_connection import Helper, HelperProcess, HelperService
from qwen_edge.device.telemetry import Telemetry, TelemetryError, Trips
from tests.shared.board import RAILS, TJ
from tests.shared.test_systemd import _SYSTEM_ONLY as SYSTEM_ONLY
from tests.shared.test_systemd import PYTHON, Manager
from tests.shared.test_systemd import TOOL as SYSTEMD_TOOL
from tests.shared.test_systemd import _usable as unusable

ROOT = Path(__file__).resolve().parents[2]
INTERVAL = 0.5
NOBODY = 65534

bounded = pytest.mark.timeout(90)  # none of them takes a third of it


@pytest.fixture(autouse=True)
def this_checkout(monkeypatch) -> None:
    """Is what helper processes find."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def source(board) -> Iterator[Jtop]:
    """A source that leaves no process behind."""
    lives: list[HelperProcess] = []

    def start() -> Helper:
        lives.append(helper_process(INTERVAL, board.socket, board.folder)())
        return lives[-1]

    source = Jtop(start, INTERVAL)
    yield source
    source.close()
    assert not any(psutil.pid_exists(life.pid) for life in lives)


def sample(source: Jtop) -> Telemetry:
    """The next one, however often the source has to start again for it."""
    while True:
        try:
            return source.read()
        except TelemetryError:
            threading.Event().wait(0.05)


def within_two(source: Jtop, condition) -> bool:
    """Does one of the next two samples meet it?"""
    return any(condition(source.read()) for _ in range(2))


def failure(source: Jtop) -> str:
    """What it says when samples end."""
    return str(_failure(source))


def next_failure(source: Jtop) -> str:
    """What it says when it has tried once more."""
    while (said := _failure(source)).again:
        threading.Event().wait(0.05)
    return str(said)


def _failure(source: Jtop) -> TelemetryError:
    with pytest.raises(TelemetryError) as caught:
        while source.read():
            pass
    return caught.value


@bounded
def test_the_board_is_read_and_what_changes_is_seen_within_two_intervals(board, source):
    board.start()
    first = sample(source)
    assert (first.source, first.tj, first.watts, first.gpu_load) == ("jtop", 48.5, 6.096, 0.035)
    assert first.rails == {"VDD_CPU_GPU_CV": 1.524, "VDD_SOC": 1.32}
    assert first.trips == Trips(passive=99.0, hot=103.0, critical=104.5)
    assert (first.fan_rpm, first.missing, first.throttled) == (1800.0, (), ())
    assert set(first.clocks) == {"cpu", "gpu", "memory"}
    board.set(TJ, 91_500)
    board.set(f"{RAILS}/curr1_input", 4000)
    assert within_two(source, lambda one: (one.tj, one.watts) == (91.5, 20.32))
    board.set(TJ, "")
    assert within_two(source, lambda one: one.missing == ("tj: offline",) and one.tj == 48.0)


@bounded
def test_a_lost_total_is_no_power_until_it_is_back(board, source):
    board.start()
    sample(source)
    current = board.folder / "sys" / RAILS / "curr1_input"
    current.rename(current.with_name("away"))
    assert within_two(source, lambda one: one.watts is None and bool(one.missing))
    current.with_name("away").rename(current)
    assert within_two(source, lambda one: one.watts == 6.096)


@bounded
def test_a_service_that_is_not_there_is_said_and_found_when_it_comes(board, source):
    assert failure(source).startswith("jtop's service does not run. Start it: ")
    board.start()
    assert sample(source).tj == 48.5


@bounded
def test_a_stopped_service_is_said_and_a_new_one_found(board, source):
    board.start()
    sample(source)
    board.send(signal.SIGTERM)
    assert failure(source).startswith("The connection to jtop's service is lost")
    assert next_failure(source).startswith("jtop's service does not run")
    board.start()
    assert sample(source).tj == 48.5


@bounded
def test_a_service_whose_head_is_killed_goes_on_and_one_killed_whole_is_said(board, source):
    board.start()
    sample(source)
    board.send(signal.SIGKILL)
    for _ in range(3):
        assert source.read().tj == 48.5
    board.end()
    assert failure(source).startswith("The connection to jtop's service is lost")
    assert next_failure(source).startswith("jtop's service does not run"), "its socket is still there"
    board.start()
    assert sample(source).tj == 48.5


@bounded
def test_a_collector_that_hangs_is_said_also_to_who_comes_later_until_it_goes_on(board, source):
    board.start()
    sample(source)
    board.collector.suspend()
    assert failure(source).startswith("jtop's service hangs")
    assert next_failure(source).startswith("jtop's service hangs"), "to connect would take for ever"
    board.collector.resume()
    assert sample(source).tj == 48.5


@bounded
def test_a_collector_that_is_killed_is_said_and_a_new_service_found(board, source):
    board.start()
    sample(source)
    board.collector.kill()
    assert failure(source).startswith(("The connection to jtop's service is lost", "jtop's service hangs"))
    board.end()
    board.start()
    assert sample(source).tj == 48.5


@bounded
def test_a_sensor_that_ends_the_services_own_reading_is_said_to_hang_it(board, source):
    board.start()
    sample(source)
    board.set(f"{RAILS}/curr2_input", "")
    assert failure(source).startswith("jtop's service hangs")
    board.end()
    board.set(f"{RAILS}/curr2_input", 300)
    board.start()
    assert sample(source).watts == 6.096


@bounded
@pytest.mark.parametrize(
    "name, other, said",
    [
        ("__version__", "7.1.9", "jtop's service is of release 7.1.9, the jetson-stats installed here is 7."),
        ("__author__", "Somebody", "jtop's service rejects the key"),
    ],
)
def test_another_release_of_the_service_is_said(board, source, name, other, said):
    board.library = board.folder / "library"
    package = Path(find_spec("jtop").origin).parent
    shutil.copytree(package, board.library / "jtop", ignore=shutil.ignore_patterns("__pycache__"))
    head = board.library / "jtop" / "__init__.py"
    head.write_text(re.sub(rf"{name} = .*", f'{name} = "{other}"', head.read_text()))
    board.start()
    assert failure(source).startswith(said)


@bounded
def test_a_user_outside_the_group_is_told_how_to_get_in(board):
    if os.geteuid() != 0:
        pytest.skip("needs root to be another user")
    board.start()
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = python_command("qwen_edge.device.sources.jtop_helper", "--socket", str(board.socket))
    (board.folder / "run").chmod(0o755)
    source = Jtop(partial(HelperProcess, [*drop, *command]))
    said = failure(source)
    source.close()
    assert "is not in group jtop" in said
    assert "usermod -aG jtop" in said


@pytest.fixture
def manager(board) -> Iterator[Manager]:
    """systemd with our units, less what only the manager of the whole system can do; and a jtop that all may ask."""
    if why := unusable():
        pytest.skip(why)
    board.start()
    board.socket.chmod(0o666)
    folder = board.folder / "systemd"
    (folder / "run").mkdir(parents=True)
    shutil.copytree(SYSTEMD_TOOL / "units", folder / "units")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    start = f"{PYTHON} -m qwen_edge.device.sources.jtop_helper --socket {board.socket} --interval {INTERVAL}"
    for name in ("qwen-edge-jtop.socket", "qwen-edge-jtop@.service"):
        unit = re.sub(
            rf"^({SYSTEM_ONLY}|Supplementary).*\n", "", (ROOT / "systemd" / name).read_text(), flags=re.MULTILINE
        )
        unit = re.sub(r"^ExecStart=.*", f"ExecStart={start}", unit, flags=re.MULTILINE)
        unit = re.sub(r"^StandardError=.*", f"StandardError=append:{folder}/run/log", unit, flags=re.MULTILINE)
        unit = unit.replace("=/run/", f"={folder}/run/").replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n")
        path = f"Environment=PYTHONPATH={ROOT}:{packages} PYTHONDONTWRITEBYTECODE=1\n"
        (folder / "units" / name).write_text(unit.replace("[Service]\n", f"[Service]\n{path}"))
    manager = Manager(folder)
    yield manager
    manager.systemctl("stop", "qwen-edge-jtop.socket", "qwen-edge-jtop@*")
    manager.end()


@bounded
def test_a_connection_to_systemds_socket_starts_a_process_that_ends_with_it(board, manager):
    started = manager.systemctl("start", "qwen-edge-jtop.socket")
    assert started.returncode == 0, started.stderr
    source = Jtop(lambda: HelperService(manager.folder / "run" / "qwen-edge-jtop.sock"), INTERVAL)
    assert sample(source).tj == 48.5

    def running() -> list[str]:
        shown = manager.systemctl("list-units", "--no-legend", "--plain", "--all", "qwen-edge-jtop@*")
        return shown.stdout.splitlines()

    assert len(running()) == 1
    source.close()
    while running():  # it finds out when it has the next sample to write
        threading.Event().wait(0.05)
    board.end()
    source = Jtop(lambda: HelperService(manager.folder / "run" / "qwen-edge-jtop.sock"), INTERVAL)
    assert failure(source).startswith("jtop's service does not run"), "in the words of the process"
    source.close()
