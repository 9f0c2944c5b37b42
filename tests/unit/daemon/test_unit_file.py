"""The systemd units, read by systemd's own checker where there is one."""

import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).resolve().parents[3] / "systemd"


pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


@pytest.mark.parametrize("drop_in", [None, "qwen-edge-cuda.conf"])
def test_the_unit_is_valid_and_well_locked(tmp_path, drop_in):
    unit = (SYSTEMD / "qwen-edge.service").read_text()
    if drop_in:
        unit = unit.replace("[Install]", (SYSTEMD / drop_in).read_text() + "\n[Install]")
    installed = install(tmp_path, "qwen-edge.service", unit, "qwen-edge")
    verify(installed)
    score(installed, 2.0 if drop_in else 1.5)


def test_the_units_for_jtop_are_valid_and_well_locked(tmp_path):
    service = install(tmp_path, name := "qwen-edge-jtop@.service", (SYSTEMD / name).read_text(), "python")
    socket = install(tmp_path, name := "qwen-edge-jtop.socket", (SYSTEMD / name).read_text(), "python")
    verify(socket, service)
    score(service, 1.0)


def test_the_engine_may_ask_which_parts_of_the_models_file_are_in_memory():
    filters = [line for line in (SYSTEMD / "qwen-edge.service").read_text().splitlines() if "SystemCallFilter=" in line]
    assert "mincore" in filters[0].split(), "it is in no group of system calls but @known"
    denied = " ".join(one.partition("~")[2] for one in filters).split()
    groups = subprocess.run(["systemd-analyze", "syscall-filter", *denied], capture_output=True, text=True, check=True)
    assert "mincore" not in groups.stdout.split()


def install(folder: Path, name: str, unit: str, program: str) -> Path:
    """A unit's file, with a program that is there."""
    (folder / program).write_text("#!/bin/sh\n")
    (folder / program).chmod(0o755)
    file = folder / name
    file.write_text(unit.replace(f"/opt/qwen-edge/.venv/bin/{program}", str(folder / program)))
    return file


def verify(*units: Path) -> None:
    verified = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert verified.stderr == "", "systemd-analyze prints what it does not know, and exits with 0"


def score(unit: Path, most: float) -> None:
    """Of exposure: 0 is not exposed at all, 10 is."""
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={10 * most:.0f}", unit]
    scored = subprocess.run(command, capture_output=True, text=True, check=False)
    assert scored.returncode == 0, scored.stdout[-200:] + scored.stderr
